"""What the commands about data stand on: files of keys and values, and changes that are all or nothing.

    keys.py         a prefix as a directory, a key as a path of names
    nesting.py      keys and values ⇄ nested mappings
    formats.py      which format a file is in, and reading and writing each
    changes.py      what turns what a prefix holds into what it should hold: compares and operations
    reading.py      a prefix page by page, at one revision
    unified.py      the difference between two states of a prefix, for people
    records.py      rows of answers as json, yaml, table or fields
    terminal.py     colour, questions, progress: only where somebody looks

All but the last three know nothing of a terminal, and all but reading.py nothing of a server.
"""
