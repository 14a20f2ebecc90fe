"""The command line: one file for each verb. Nothing else prints, and nothing else exits."""
