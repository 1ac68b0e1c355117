"""completion: the scripts that have a shell ask us what could come next, and the answers.

click's machinery, with three differences: global flags may stand behind the command; what ends with a slash
is not yet a whole word; and bash is asked for the line as it was typed, as it takes words with ``:`` or ``=``
apart (then, only what stands behind these is replaced).
"""

from __future__ import annotations

import os
import re
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from kvorum.cli import main
from kvorum.cli.examples import examples

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
%(complete_func)s() {
    local line type value
    COMPREPLY=()
    while IFS= read -r line; do
        type=${line%%%%,*}
        value=${line#*,}
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            part) compopt -o nospace; COMPREPLY+=("$value") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done <<< "$(KVORUM_COMP_LINE="${COMP_LINE:0:$COMP_POINT}" KVORUM_COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)"
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a plain described parts response
    local type key description
    (( $+commands[%(prog_name)s] )) || return 1
    response=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)}")
    for type key description in ${response}; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            part) parts+=("$key") ;;
            plain)
                if [[ $description == _ ]]; then
                    plain+=("$key")
                else
                    described+=("$key:$description")
                fi ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U
    (( $#plain )) && compadd -U -V unsorted -a plain
    (( $#parts )) && compadd -U -S '' -V unsorted -a parts
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    set -l response (COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -ct) \\
        %(complete_var)s=fish_complete %(prog_name)s 2>/dev/null)
    for completion in $response
        set -l metadata (string split -m1 "," -- $completion)
        switch $metadata[1]
            case dir
                __fish_complete_directories $metadata[2]
            case file
                __fish_complete_path $metadata[2]
            case plain part
                echo $metadata[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Completing(ShellComplete):
    """Which words could come next, whatever the shell."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        try:
            return self._completions(args, incomplete)
        except Exception:  # whoever presses Tab has asked for no message
            return []

    def _completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        if "--" in args:  # a command to run: not ours
            return [CompletionItem(incomplete, type="file")]
        # `--flag=val` is completed as `--flag val` is; shells to whom it is one word want all of it back.
        flag, equals, value = incomplete.partition("=")
        if incomplete.startswith("--") and equals:
            found = self._completions([*args, flag], value)
            return [self._with_flag(f"{flag}=", item) for item in found]
        root = self.cli.make_context("kvorum", main.hoisted(args[:-1]), resilient_parsing=True)
        for option in main.global_options():
            if args and args[-1] in option.opts and not option.is_flag:
                return option.shell_complete(root, incomplete)
        found = super().get_completions(main.hoisted(args), incomplete)
        if incomplete.startswith("-"):
            known = {item.value for item in found}
            everywhere = click.Command.shell_complete(self.cli, root, incomplete)
            found += [item for item in everywhere if item.value not in known]
        return found

    def _with_flag(self, flag: str, item: CompletionItem) -> CompletionItem:
        return CompletionItem(flag + item.value, type=item.type, help=item.help)


class _Bash(_Completing, BashComplete):
    source_template = _BASH

    def source(self) -> str:
        return self.source_template % self.source_vars()  # without a look at this machine's bash

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["KVORUM_COMP_LINE"]
        words = split_arg_string(line)
        if line[-1:].isspace() and not _open_quote(line):
            words.append("")
        self._line, self._incomplete = line, words[-1]
        return words[1:-1], words[-1]

    def _with_flag(self, flag: str, item: CompletionItem) -> CompletionItem:
        self._incomplete = self._incomplete.removeprefix(flag)
        return item

    def format_completion(self, item: CompletionItem) -> str:
        value, quote = item.value, _open_quote(self._line)
        if not quote:
            breaks = [mark for mark in ":=" if mark in os.environ.get("KVORUM_COMP_BREAKS", "")]
            kept = max((self._incomplete.rfind(mark) + 1 for mark in breaks), default=0)
            value = value[kept:]
        return f"{item.type},{_as_typed(value, quote)}"


def _as_typed(value: str, quote: str) -> str:
    """As it has to stand in the line, behind an open quote, to be this value. Whoever may put keys could have
    a command run otherwise."""
    if quote == "'":
        return value.replace("'", "'\\''")
    if quote == '"':
        # No backslash keeps an interactive bash from looking for ! in its history; single quotes do.
        return re.sub(r'([\\"$`])', r"\\\1", value).replace("!", "\"'!'\"")
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", value)


def _open_quote(line: str) -> str:
    """The one that is open at the end of the line; empty if none is."""
    quote = ""
    for character in re.sub(r"\\.", "", line):
        if character in "'\"" and quote in ("", character):
            quote = "" if quote else character
    return quote


class _Zsh(_Completing, ZshComplete):
    source_template = _ZSH


class _Fish(_Completing, FishComplete):
    source_template = _FISH


for _class in (_Bash, _Zsh, _Fish):
    add_completion_class(_class)


@click.command(
    epilog=examples(
        'eval "$(kvorum completion bash)"        # in ~/.bashrc',
        'eval "$(kvorum completion zsh)"         # in ~/.zshrc, behind compinit',
        "kvorum completion fish > ~/.config/fish/completions/kvorum.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that has a shell complete commands, flags, contexts, and keys of the server."""
    kind: Any = get_completion_class(shell)
    click.echo(kind(main.cli, {}, "kvorum", "_KVORUM_COMPLETE").source(), nl=False)
