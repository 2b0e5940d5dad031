"""What the shell offers, as typer's scripts for bash and zsh ask for it."""

from __future__ import annotations

import pytest
import tiny_study

from kdsim.cli import main, options
from kdsim.cli.codes import ExitCode
from kdsim.data import SOURCES
from kdsim.engines import AUTO, ENGINES
from kdsim.losses import DISTILLATION_LOSSES


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Words that bash offers for the last word of a line."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("_KDSIM_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        assert main([]) == ExitCode.DONE
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.split()

    return ask


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kdsim run", ["run-study"]),
        ("kdsim data ", ["check", "fetch"]),
        ("kdsim list l", ["losses"]),
        ("kdsim run-study no", ["noise-sweep", "nonconvex-sweep"]),
        ("kdsim show-study dis", ["distill"]),
        ("kdsim results noise-sweep --rep", ["--replicas"]),
        ("kdsim run-study noise-sweep --set problem.cl", ["problem.classes="]),
        ("kdsim run-study --set steps=3 noise-sweep --set problem.cl", ["problem.classes="]),
        ("kdsim train resnet8 --set recipe.bat", ["recipe.batch_size="]),
        ("kdsim export-problem dig", ["digits"]),
        ("kdsim export-problem digits --set ", ["penalty=", "samples="]),
        ("kdsim verify-claims p", ["p1", "p2"]),
        ("kdsim verify-claims --only p", ["p1", "p2"]),
        ("kdsim gallery bat", ["batch-sweep"]),
        ("kdsim columns stationa", ["stationary"]),
        ("kdsim run-study noise-sweep --engine t", ["torch"]),
        (f"kdsim run-study {tiny_study.__file__} --set ", []),  # a study file is not run for this
    ],
)
def test_bash(offered, line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_words_that_are_written_out_are_all_there_are(offered) -> None:
    assert set(offered("kdsim run-study x --engine ")) == {AUTO, *ENGINES}
    assert set(offered("kdsim train x --data ")) == {source.name for source in SOURCES}
    assert offered("kdsim distill x y --loss ") == [loss.name for loss in DISTILLATION_LOSSES]
    assert options.Engine.__metadata__[0].help == "auto, cpu_fused, gpu_fused, torch or autograd"


def test_zsh_gets_the_meaning_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_KDSIM_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "kdsim export-problem digits --set pen")
    assert main([]) == ExitCode.DONE
    assert capsys.readouterr().out.startswith('_arguments \'*: :(("penalty=":"L2 penalty of the fit.')


def test_a_line_that_is_wrong_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would stand in the line that is being typed."""
    monkeypatch.setenv("_KDSIM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "kdsim no-such-command ")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert main([]) == ExitCode.FAILED
    assert capsys.readouterr() == ("", "")


def test_the_scripts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        monkeypatch.setattr("typer.completion._get_shell_name", lambda shell=shell: shell)
        assert main(["--show-completion"]) == ExitCode.DONE
        captured = capsys.readouterr()
        assert f"_KDSIM_COMPLETE=complete_{shell}" in captured.out and captured.err == ""
