"""The command line: one module for each group of commands, imported when the command is asked for.

Nothing imports it. Commands write their result to stdout and everything else to stderr; docs/cli.md has the exit codes.
"""
