"""The command line: etcdctl's commands, flags and output, and ``serve``."""
