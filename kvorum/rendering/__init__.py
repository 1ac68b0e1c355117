"""Files from templates and keys: what ``kvorum render`` does.

ranges.py      pure: which keys were read, and which few ranges cover them
snapshot.py    reads, all as of one revision
templates.py   Jinja2, and what templates can ask for
target.py      one template and its file: render, check, replace, reload
following.py   watches of all that was read
renderer.py    several targets, once or for as long as they change
config.py      pure: targets from a file or from arguments
"""
