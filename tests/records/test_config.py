from records.__main__ import COMMANDS
from records.config import VerifyOptions


def test_verify_looks_at_the_sample_unless_told_otherwise():
    assert VerifyOptions() == VerifyOptions(data="out/sample")


def test_commands():
    assert {name: command.entry for name, command in COMMANDS.items()} == {"verify": "records.format.verify:main"}
