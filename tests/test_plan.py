"""Which runs belong to a comparison, their folders and commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_runs import finish

from fairclip.compare import calls, plan
from fairclip.compare.methods import USUAL, read_methods
from fairclip.compare.plan import Experiment, Job, find_dataset, read_experiment
from fairclip.compare.suites import expand, read_suites
from fairclip.core.errors import UserError
from fairclip.core.places import CONFIGS, DATA, HOME
from fairclip.data.synth.lights import LIGHTS

METHODS = {m.key: m for m in read_methods(USUAL)}


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    return Experiment(tmp_path / "my data", tmp_path / "my output")


def jobs(experiment: Experiment, dataset: str, cfg: str, keys: str, *seeds: int, options=()) -> list[Job]:
    rows = [METHODS[key] for key in keys.split()]
    return plan.plan(experiment, find_dataset(dataset), cfg, rows, seeds, options)


def test_a_run_has_its_folder_and_its_command(experiment):
    (job,) = jobs(experiment, "synth_cars", "tiny", "fair", 2)
    assert job.folder == experiment.output / "synth_cars/FAIR/tiny/seed2"
    assert job.name == "FAIR, synth_cars, tiny, seed 2"
    assert list(job.arguments) == [
        *("--root", str(experiment.data), "--output-dir", str(job.folder), "--seed", "2", "--trainer", "FAIR"),
        *("--dataset-config-file", str(CONFIGS / "datasets/synth_cars.yaml")),
        *("--config-file", str(CONFIGS / "trainers/FAIR/tiny.yaml")),
    ]


def test_a_variant_may_have_a_config_of_its_own(experiment, tmp_path, monkeypatch):
    usual, own = tmp_path / "trainers/DPA/tiny.yaml", tmp_path / "trainers/DPA/tiny_descriptions.yaml"
    usual.parent.mkdir(parents=True)
    monkeypatch.setattr(plan, "CONFIGS", tmp_path)
    for file in (usual, own):
        file.touch()
        (alone, described) = jobs(experiment, "synth_cars_s4", "tiny", "dpa dpa_descriptions", 1)
        assert str(usual) in alone.arguments and str(file) in described.arguments
    assert described.folder == experiment.output / "synth_cars_s4/DPA/tiny_descriptions/seed1"
    assert plan.configs_of("DPA") == ["tiny"]  # the other is no config that one could ask for


def test_methods_seeds_and_tag_in_the_order_asked_for(experiment):
    tagged = Experiment(experiment.data, experiment.output, "try.2", ("A.KEY", "$(x) 'y' *"))
    found = jobs(tagged, "synth_cars_s4", "tiny", "plain fair", 2, 1, 2, options=("B.KEY", "1"))
    folders = [str(job.folder.relative_to(experiment.output)) for job in found]
    assert folders == [
        *("synth_cars_s4/FAIR/tiny_try.2_plain/seed2", "synth_cars_s4/FAIR/tiny_try.2_plain/seed1"),
        *("synth_cars_s4/FAIR/tiny_try.2/seed2", "synth_cars_s4/FAIR/tiny_try.2/seed1"),
    ]
    # The last of a key counts: what makes a row stands behind what the user gave.
    given = ("DATASET.SYNTH_SEED", "4", "B.KEY", "1", "A.KEY", "$(x) 'y' *")
    assert found[0].arguments[-len(given) - 8 :] == (*given, *METHODS["plain"].options)
    assert found[2].arguments[-len(given) :] == given
    assert str(CONFIGS / "datasets/synth_cars.yaml") in found[0].arguments


def test_where_the_seed_does_not_matter_one_run_is_enough(experiment):
    assert [job.folder.name for job in jobs(experiment, "synth_cars", "tiny", "cupl", 4, 5)] == ["seed4"]
    finish(experiment.output / "synth_cars/CuPL/tiny/seed7")
    (job,) = jobs(experiment, "synth_cars", "tiny", "cupl", 4, 5)
    assert job.folder.name == "seed7" and job.finished
    finish(experiment.output / "synth_cars/CuPL/tiny/seed5")
    assert [job.folder.name for job in jobs(experiment, "synth_cars", "tiny", "cupl", 4, 5)] == ["seed5"]


def test_finished_means_results(experiment):
    (job,) = jobs(experiment, "synth_cars", "tiny", "fair", 1)
    job.folder.mkdir(parents=True)  # interrupted
    assert not job.finished
    finish(job.folder)
    assert job.finished


def test_data_sets():
    assert find_dataset("synth_cars").built_in and not find_dataset("dtd").built_in
    assert find_dataset("synth_cars_s12").options == ("DATASET.SYNTH_SEED", "12")
    assert find_dataset("synth_cars_s12_low_sun").options == (
        *("DATASET.SYNTH_SEED", "12", "DATASET.SYNTH_LIGHT", "low_sun"),
    )
    assert find_dataset("synth_cars_s12_low_sun").file == "synth_cars"
    wrong = ["synth_car", "../x", "", "synth_cars_s0", "synth_cars_s1/..", "../datasets/dtd", "dtd.yaml", "fine13"]
    wrong += [
        "synth_cars_s5_",
        "synth_cars_s5_dusk",
        "synth_cars_fog",
        "synth_cars_s5_blue_hour",
        "synth_cars_s5_fog_fog",
    ]
    for name in wrong:
        with pytest.raises(UserError, match="Choose one of: aid birdsnap") as caught:
            find_dataset(name)
        assert f"Unknown data set '{name}'" in str(caught.value) and "synth_cars_s<N>" in str(caught.value)
        assert "<backlight|fog|low_sun|sodium>. fair compare also takes fine13 (13 data sets)" in str(caught.value)


def test_fine13_is_thirteen_sets_of_other_cars_in_four_lights():
    """Those of development (seeds 0 to 2) are not among them."""
    beds = [find_dataset(name) for name in expand(["fine13"])]
    options = [dict(zip(bed.options[::2], bed.options[1::2], strict=True)) for bed in beds]
    seeds = {int(each["DATASET.SYNTH_SEED"]) for each in options}
    assert len(seeds) == 13 and min(seeds) >= 5
    assert {each["DATASET.SYNTH_LIGHT"] for each in options} == set(LIGHTS) - {"blue_hour"}


def test_suites_are_expanded_once():
    beds = read_suites()["fine13"]
    assert expand(["dtd", "fine13", "synth_cars_s9_sodium", "dtd"]) == ["dtd", *beds]
    assert expand(["fine13/tiny_x"]) == [f"{bed}/tiny_x" for bed in beds]
    assert expand(["fine1", "a/fine13"]) == ["fine1", "a/fine13"]


@pytest.mark.parametrize("cfg", ["nope", "../FAIR/tiny", "", "tiny.yaml"])
def test_configs_are_files_of_the_trainer(cfg):
    with pytest.raises(UserError, match="of 'fair'. Choose one of: rn50 tiny tiny_rn"):
        plan.require_config(METHODS["fair"], cfg)
    assert not plan.has_config(METHODS["fair"], cfg) and plan.has_config(METHODS["fair"], "tiny")


def test_methods_without_the_config_are_left_out(capsys):
    rows = [METHODS["fair"], METHODS["lafter"]]  # LaFTer knows no ResNet
    assert plan.with_config(rows, "rn50", find_dataset("dtd")) == [METHODS["fair"]]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "dtd: there is no config 'rn50' of lafter: left out.\n")


def test_environment(tmp_path, monkeypatch):
    usual = read_experiment([], {})
    assert (usual.data, usual.output, usual.tag) == (DATA.absolute(), DATA.absolute().with_name("output"), "")
    assert usual.prefix() == {}
    monkeypatch.chdir(tmp_path)
    own = read_experiment(["A.KEY", "1"], {"DATA": "my data", "OUTPUT": "/out", "TAG": "try.2"})
    assert own == Experiment(tmp_path / "my data", Path("/out"), "try.2", ("A.KEY", "1"))
    assert own.prefix() == {"DATA": str(tmp_path / "my data"), "OUTPUT": "/out", "TAG": "try.2"}
    assert own.tagged("tiny") == "tiny_try.2" and usual.tagged("tiny") == "tiny"


@pytest.mark.parametrize(
    "options, tag, message",
    [
        (["A", "1"], "", "TAG=name"),
        (["A"], "x", "in pairs, KEY VALUE. Got: A"),
        (["A", "1"], "plain", "TAG=plain ends in 'plain'.*Choose another name"),
        ([], "inductive", "Choose another name"),
        ([], "aligned", "Choose another name"),
        ([], "mine_aligned", "Choose another name"),
        ([], "../x", "TAG is '../x'. Use letters"),
        ([], "a b", "TAG is 'a b'"),
    ],
)
def test_wrong_options_and_tags(options, tag, message):
    with pytest.raises(UserError, match=message):
        read_experiment(options, {"TAG": tag})


def test_a_test_of_saved_runs_needs_no_tag():
    assert read_experiment(["A", "1"], {}, needs_tag=False).options == ("A", "1")
    assert read_experiment([], {"TAG": "mine_plain"}, needs_tag=False).tag == "mine_plain"


def test_a_data_folder_that_was_named_must_be_there(experiment):
    with pytest.raises(UserError, match=f"DATA={experiment.data} does not exist"):
        plan.check_data(experiment, find_dataset("dtd"))
    plan.check_data(experiment, find_dataset("synth_cars_s3"))  # made on demand
    plan.check_data(Experiment(DATA.absolute(), experiment.output), find_dataset("dtd"))
    experiment.data.mkdir()
    plan.check_data(experiment, find_dataset("dtd"))


def test_a_run_is_called_from_anywhere(tmp_path, monkeypatch):
    assert calls.command(["--seed", "1"]) == [sys.executable, str(HOME / "train.py"), "--seed", "1"]
    # As after an installation from a wheel, in a folder and an environment that know nothing of the package.
    monkeypatch.setattr(calls, "SHARE", HOME)
    assert calls.command(["--seed", "1"]) == [sys.executable, "-m", "fairclip", "train", "--seed", "1"]
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    environment = calls.child_environment()
    assert environment["PYTHONPATH"] == os.pathsep.join([str(HOME), "/theirs"])
    done = subprocess.run(
        calls.command(["--help"]), cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "--dataset-config-file" in done.stdout
