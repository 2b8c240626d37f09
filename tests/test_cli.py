"""The command `fair`: help, mistakes, and what a module that was not copied says."""

import re

import pytest

from fairclip import cli

WORDS = [
    [name, *member]
    for name, command in cli.COMMANDS.items()
    for member in ([[key] for key in command] if isinstance(command, dict) else [[]])
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_every_help_has_an_example(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert end.value.code == 0
    assert re.search(rf"^ +.*\bfair {' '.join(words)}\b", capsys.readouterr().out, flags=re.M)


def test_the_help_lists_all_commands(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0 and all(re.search(rf"^ +{name}\b", out, flags=re.M) for name in cli.COMMANDS)


@pytest.mark.parametrize("words", [[], ["fly"], ["data"], ["data", "fly"]], ids=" ".join)
def test_an_unknown_command_is_one_message(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    err = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in err and err.startswith("Error: fair") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--dataset", "x"], "fair train: unknown arguments: --dataset, did you mean --dataset-config-file?"),
        (["predict", "run", "--otput=x"], "fair predict: unknown arguments: --otput=x, did you mean --output?"),
        (["data", "doctor", "--fly"], "fair data doctor: unknown arguments: --fly (fair data doctor --help lists"),
        (["adapt", "photos"], "fair adapt: the following arguments are required: --classes"),
    ],
)
def test_an_unknown_option_is_told_by_the_command_that_was_meant(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.startswith(f"Error: {message}") and err.count("\n") == 1
