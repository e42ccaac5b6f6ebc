"""The commands, a module for each kind of work: every one parses, calls the library, prints, and exits with its code.

What is heavy is imported by the function that needs it. Only this package and the command line know all four parts.
"""
