"""Train in a process that a test kills."""

COMMAND = """
from competition.cli import main
sys.exit(main(sys.argv[1:]))
"""
