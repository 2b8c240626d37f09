"""`fair compare`, `fair run` and `fair eval`, with a stand-in for training."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from commands import command
from made_up_runs import finish
from test_runner import called, standin  # noqa: F401 (a fixture)

from fairclip.compare import calls, compare_command, plan, run_command
from fairclip.compare.checks import check_jobs
from fairclip.core.errors import UserError
from fairclip.core.places import HOME

compare, run, evaluate = command("compare"), command("run"), command("eval")


@pytest.fixture
def folder(standin, monkeypatch) -> Path:  # noqa: F811
    """Where results go, results/ of it. What is finished there is as it should be, and all data is there."""
    monkeypatch.chdir(standin)
    for name in ("DATA", "TAG", "METHODS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OUTPUT", "results")
    for module in (compare_command, run_command):
        monkeypatch.setattr(module, "check_jobs", lambda jobs, data=True: None)
    monkeypatch.setattr(compare_command, "command", calls.command)
    return standin


def trained(folder: Path) -> list[list[str]]:
    """How the stand-in was called."""
    lines = (folder / "calls.jsonl").read_text().splitlines() if (folder / "calls.jsonl").exists() else []
    return [json.loads(line) for line in lines]


def places(folder: Path) -> list[str]:
    """The folders of the runs that were started, below that of the data set."""
    return [call[3].split("/results/")[1].split("/", 1)[1] for call in trained(folder)]


# fair compare


def test_compare_runs_what_is_missing(folder, capfd):
    arguments = ["synth_cars", "--methods", "fair,cupl,plain", "--seeds", "1", "2"]
    assert compare(arguments) == 0
    assert places(folder) == [  # in the order that was asked for; a zero-shot method once
        *("FAIR/tiny/seed1", "FAIR/tiny/seed2", "CuPL/tiny/seed1"),
        *("FAIR/tiny_plain/seed1", "FAIR/tiny_plain/seed2"),
    ]
    calls = trained(folder)
    assert all(" TEST.EVERY_EPOCH True" in " ".join(call) for call in calls)
    assert " TRAINER.FAIR.N_CROPS 0 " in " ".join(calls[3])
    out, err = capfd.readouterr()
    assert "noise" not in out + err and err.count("run 1 of 5: ") == 2
    assert out.startswith("Test accuracy in %") and "| FAIR " in out
    for name in ("comparison.md", "comparison.html"):
        assert (folder / "results" / name).is_file() and f"Wrote {folder}/results/{name}" in err

    # Again, with one seed more: what is finished does not run again, a zero-shot method for no other seed.
    (folder / "results/synth_cars/FAIR/tiny/seed2/results.json").unlink()  # interrupted: its folder is there
    (folder / "calls.jsonl").unlink()
    assert compare([*arguments[:-2], "3", "2"]) == 0
    assert places(folder) == ["FAIR/tiny/seed3", "FAIR/tiny/seed2", "FAIR/tiny_plain/seed3"]


def test_a_suite_is_compared_by_its_name(folder, capfd):
    assert compare(["fine13", "synth_cars_s9_sodium", "--methods", "cupl,fair", "--seeds", "1"]) == 0
    calls = trained(folder)
    assert len(calls) == 26 and places(folder)[:2] == ["CuPL/tiny/seed1", "FAIR/tiny/seed1"]
    given = [call[call.index("DATASET.SYNTH_SEED") :] for call in calls[::2]]
    assert given[0][:4] == ["DATASET.SYNTH_SEED", "5", "DATASET.SYNTH_LIGHT", "backlight"]
    assert given[4][:4] == ["DATASET.SYNTH_SEED", "9", "DATASET.SYNTH_LIGHT", "sodium"]
    out, _ = capfd.readouterr()
    assert "average over 13 data sets" in out and "| synth_cars_s17_fog " in out
    assert run(["fair", "fine13"]) == 2 and "fair compare also takes fine13" in capfd.readouterr().err


def test_failed_runs_are_named_below_the_table(folder, capfd):
    assert compare(["synth_cars", "--methods", "fair,upl", "--seeds", "13", "15", "--jobs", "2"]) == 1
    out, err = capfd.readouterr()
    assert (folder / "results/synth_cars/UPL/tiny/seed15/results.json").exists() and "| UPL " in out
    assert "2 of 4 runs failed:\n  Error: it broke (exit status 1)\n    FAIR, synth_cars, tiny, seed 13: " in err
    assert err.rstrip().endswith(f"{folder}/results/synth_cars/UPL/tiny/seed13/compare.log")
    assert compare(["synth_cars", "--methods", "must", "--seeds", "13"]) == 1  # without anything to show
    assert "no finished run of synth_cars (tiny)" in capfd.readouterr().err


def test_print_lists_commands_and_runs_nothing(folder, monkeypatch, capfd):
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(compare_command, "check_jobs", lambda jobs, data: None)
    monkeypatch.setenv("OUTPUT", "my results")
    monkeypatch.setenv("TAG", "t")
    finish(folder / "my results/synth_cars/FAIR/tiny/seed1")  # the tag has a folder of its own
    chosen = ["--methods", "fair,upl", "--seeds", "1", "2"]
    assert compare(["synth_cars", "synth_cars_s3", "--print", *chosen, "--", "A.KEY", "$(x) 'y'"]) == 0
    out, err = capfd.readouterr()
    calls = [shlex.split(line) for line in out.splitlines()]
    assert err == "" and len(calls) == 8
    for call in calls:
        assert call[1] == str(HOME / "train.py") and call[-2:] == ["A.KEY", "$(x) 'y'"]
        assert Path(call[call.index("--output-dir") + 1]).is_absolute()  # runs from anywhere
    assert calls[0][5] == f"{folder}/my results/synth_cars/FAIR/tiny_t/seed1"
    assert "DATASET.SYNTH_SEED" in calls[4] and "DATASET.SYNTH_SEED" not in calls[0]


def test_printed_commands_are_independent(folder, tmp_path_factory, capfd):
    """In any order, at once, from anywhere, and without what the call had set."""
    chosen = ["--methods", "fair,upl,cupl", "--seeds", "1", "2"]
    assert compare(["synth_cars", "synth_cars_s3", "--print", *chosen]) == 0 and not trained(folder)
    lines = capfd.readouterr().out.splitlines()
    folders = [call[call.index("--output-dir") + 1] for call in map(shlex.split, lines)]
    assert len(set(folders)) == len(lines) == 10
    subprocess.run(
        ["xargs", "-0", "-n", "1", "-P", "4", "bash", "-c"],
        input="".join(f"{line}\0" for line in reversed(lines)),
        text=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={"PATH": os.environ["PATH"], "STANDIN": str(folder)},
        check=True,
        capture_output=True,
    )
    assert all(Path(place, "results.json").is_file() for place in folders)


def test_another_table_of_methods(folder, capfd):
    assert compare(["synth_cars", "--table", "ablation", "--methods", "crops8,name", "--seeds", "1"]) == 0
    assert places(folder) == ["FAIR/tiny_crops8/seed1", "FAIR/tiny_name/seed1"]
    assert (folder / "results/ablation.md").is_file() and "| 8 crops " in capfd.readouterr().out


def test_methods_without_the_config_are_left_out_or_an_error(folder, capfd):
    assert compare(["synth_cars", "--cfg", "rn50", "--print"]) == 0
    out, err = capfd.readouterr()
    assert "there is no config 'rn50' of " in err and " lafter " in err and "/LaFTer/" not in out and "/FAIR/" in out
    assert compare(["synth_cars", "--cfg", "rn50", "--print", "--methods", "fair,lafter"]) == 2
    assert "There is no config 'rn50' of 'lafter'. Choose one of: tiny" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["synth_car"], "Unknown data set 'synth_car'"),
        (["../synth_cars"], "Unknown data set '../synth_cars'"),
        (["synth_cars", "--methods", "fair,lafte"], "Unknown method 'lafte'. Choose from: zsclip"),
        (["synth_cars", "--methods", "../fair"], "Unknown method '../fair'"),
        (["synth_cars", "--cfg", "nope"], "No method has the config 'nope'"),
        (["synth_cars", "--methods", "fair", "--cfg", "../FAIR/tiny"], "There is no config '../FAIR/tiny' of 'fair'"),
        (["synth_cars", "--", "A", "1"], "TAG=name"),
        (["synth_cars", "--table", "nope"], "no table of methods 'nope'"),
    ],
)
def test_mistakes_end_in_one_message_before_anything_runs(folder, capfd, arguments, message):
    assert compare(arguments) == 2
    out, err = capfd.readouterr()
    assert message in err and out == "" and not trained(folder)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required: DATASET"),
        (["synth_cars", "--methods"], "--methods: expected one argument"),
        (["synth_cars", "--methods", "--print"], "--methods: expected one argument"),
        (["synth_cars", "--seeds", "one"], "'one' is not a whole number"),
        (["synth_cars", "--seeds", "-1"], "--seeds"),
        (["synth_cars", "--sed", "1"], "--sed"),
        (["synth_cars", "--jobs", "0"], "whole number above 0"),
        (["synth_cars", "--jobs", "two"], "'two' is not a whole number"),
    ],
)
def test_wrong_words_are_explained(folder, capfd, arguments, message):
    with pytest.raises(SystemExit) as caught:
        compare(arguments)
    assert caught.value.code == 2 and message in capfd.readouterr().err and not trained(folder)


@pytest.mark.parametrize("words", [["compare"], ["run"], ["eval"], ["table"]])
def test_help_has_an_example(capfd, words):
    with pytest.raises(SystemExit) as caught:
        command(*words)(["--help"])
    assert caught.value.code == 0
    assert re.search(rf"^    fair {words[0]} \w+", capfd.readouterr().out, re.MULTILINE)


# Checks before anything runs


def jobs(output: Path, keys: str = "fair", dataset: str = "synth_cars", options=(), data: Path = Path("/none")):
    rows = [method for method in plan_methods() if method.key in keys.split()]
    experiment = plan.Experiment(data, output, "t", tuple(options))
    return plan.plan(experiment, plan.find_dataset(dataset), "tiny", rows, [1])


def plan_methods():
    return compare_command.read_methods(compare_command.USUAL)


def test_config_keys_must_exist(tmp_path):
    check_jobs(jobs(tmp_path, options=["TRAINER.FAIR.N_CROPS", "4"]))
    with pytest.raises(UserError, match="no config key TRAINER.FAIR.N_CROP, did you mean TRAINER.FAIR.N_CROPS?"):
        check_jobs(jobs(tmp_path, options=["TRAINER.FAIR.N_CROP", "4"]))


def test_finished_runs_of_other_settings_are_refused_by_the_keys_that_differ(tmp_path, capfd):
    from fairclip.core.plugins import import_plugins
    from fairclip.run import config, launch
    from fairclip.run.settings import run_hash

    modules, _ = import_plugins("trainers", "datasets")
    done = jobs(tmp_path, "fair plain cupl", options=["OPTIM.MAX_EPOCH", "8", "OPTIM.LR", "0.002"])
    for job in done:
        cfg = config.build_cfg(launch.parse_args(job.arguments), modules)
        finish(job.folder, config_hash=run_hash(cfg), seed=1)
        (job.folder / "config.yaml").write_text(cfg.dump().replace("SIZE:\n  - 224\n  - 224", "SIZE:\n  - 64\n  - 64"))
    capfd.readouterr()
    check_jobs(done)  # of the same settings
    with pytest.raises(UserError) as caught:
        check_jobs(jobs(tmp_path, "fair plain cupl", options=["OPTIM.MAX_EPOCH", "2", "OPTIM.LR", "0.002"]))
    assert str(caught.value).splitlines() == [
        "3 finished runs have other settings:",
        f"  {', '.join(str(done[i].folder) for i in (0, 1, 2))}",
        "    OPTIM.MAX_EPOCH 8 (now 2)",
        "Choose another TAG or OUTPUT, or remove those folders.",
    ]
    # A changed backbone is said once for all runs, where the table of runs that --print makes does not go.
    for job in done:
        (job.folder / "results.json").write_text(
            json.dumps(json.loads((job.folder / "results.json").read_text()) | {"tower_hash": "0" * 64})
        )
    check_jobs(done)
    out, err = capfd.readouterr()
    assert (
        not out and err.startswith(f"Warning: {done[0].folder}, ") and err.count("another image tower than tiny") == 1
    )
    # Without the file that says which, and for what else makes another run.
    (done[0].folder / "config.yaml").unlink()
    with pytest.raises(UserError, match="holds a finished run with other settings"):
        check_jobs(jobs(tmp_path, "cupl", options=["OPTIM.MAX_EPOCH", "2", "OPTIM.LR", "0.002"]))
    assert capfd.readouterr().out == ""


def test_missing_data_sets_are_named_in_one_message(tmp_path):
    (tmp_path / "data").mkdir()
    work = [job for name in ("dtd", "synth_cars", "aid") for job in jobs(tmp_path, "fair cupl", name, data=tmp_path)]
    with pytest.raises(UserError, match="^2 data sets cannot be used: DescribableTextures, AID\n") as caught:
        check_jobs(work)
    assert str(caught.value).count("DescribableTextures was not found") == 1
    check_jobs(work, data=False)  # the commands alone were asked for
    for job in work:
        if job.dataset == "dtd":
            finish(job.folder)
    with pytest.raises(UserError, match="^AID was not found"):  # what is finished needs no data
        check_jobs([job for job in work if not job.finished])


# fair run


def test_run_does_the_rows_and_shows_the_table(folder, capfd):
    assert run(["fair", "synth_cars", "tiny", "1", "2"]) == 0
    assert places(folder) == [
        *("ZeroshotCLIP/tiny/seed1", "CuPL/tiny/seed1", "FAIR/tiny_plain/seed1", "FAIR/tiny_plain/seed2"),
        *("FAIR/tiny_aligned/seed1", "FAIR/tiny_aligned/seed2", "FAIR/tiny/seed1", "FAIR/tiny/seed2"),
    ]
    assert "TEST.EVERY_EPOCH" not in trained(folder)[2]
    out = capfd.readouterr().out
    assert "run 3 of 8: Plain self-training, synth_cars, tiny, seed 1" in out and out.count("noise of a run") == 8
    table, after = out.split("synth_cars, tiny (CLIP tiny), test accuracy in %, last epoch")[1].split("Results: ")
    assert "| FAIR " in table and "51.50 ± 0.71" in table
    assert after.startswith("results/synth_cars, those of FAIR in results/synth_cars/FAIR/tiny\nNext:\n")
    assert " compare synth_cars --cfg tiny " in after and " table results --datasets synth_cars/tiny " in after
    assert f"OUTPUT={folder}/results " in after and "predict" not in after  # the stand-in leaves no checkpoint

    # Again: nothing is run, and the table comes. With a checkpoint, so does prediction.
    (folder / "calls.jsonl").unlink()
    (folder / "results/synth_cars/FAIR/tiny/seed1/fair").mkdir()
    (folder / "results/synth_cars/FAIR/tiny/seed1/fair/model.pth.tar-8").touch()
    assert run(["fair", "synth_cars", "tiny", "1", "2"]) == 0 and not trained(folder)
    out = capfd.readouterr().out
    assert "FAIR, synth_cars, tiny, seed 2: finished already, accuracy 52.00" in out and "| FAIR " in out
    assert " predict results/synth_cars/FAIR/tiny/seed1 IMAGES..." in out


def test_zero_shot_runs_once(folder):
    assert run(["zsclip", "synth_cars"]) == 0
    assert places(folder) == ["ZeroshotCLIP/tiny/seed1", "ZeroshotCLIP2/tiny/seed1", "CuPL/tiny/seed1"]


def test_descriptions_reach_all_rows_that_use_them(folder, monkeypatch, capfd):
    monkeypatch.setenv("TAG", "own")
    options = ["TRAINER.FAIR.N_CROPS", "4", "TRAINER.FAIR.DESCRIPTIONS", "my own.json"]
    assert run(["fair", "synth_cars", "1", "--", *options]) == 0
    zsclip, cupl, plain, aligned, fair = trained(folder)
    assert cupl[-2:] == ["TRAINER.CUPL.DESCRIPTIONS", "my own.json"]
    assert not any("TRAINER.FAIR" in word for word in zsclip + cupl)  # keys of another trainer
    for row in (plain, aligned):
        assert " ".join(row).count(" ".join([*options, "TRAINER.FAIR.N_CROPS", "0"])) == 1  # the last of a key counts
    assert fair[-4:] == options
    assert "TAG=own " in capfd.readouterr().out


def test_a_failed_run_ends_it_with_its_status(folder, capfd):
    assert run(["fair", "synth_cars", "13", "14"]) == 1
    assert called(folder) == ["seed13"]
    out = capfd.readouterr().out
    assert "seed 13 failed (exit status 1)" in out and "Results:" not in out


def test_a_trainer_alone(folder, capfd):
    assert run(["--trainer", "FAIR", "stanford_cars", "7"]) == 0
    assert run(["--trainer", "TransCLIP", "synth_cars_s4", "0", "1"]) == 0
    assert places(folder) == ["FAIR/vit_b32/seed7", "TransCLIP/tiny/seed0"]
    assert trained(folder)[1][-2:] == ["DATASET.SYNTH_SEED", "4"]
    assert "Results:" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments, environment, message",
    [
        (["nobody", "synth_cars"], {}, "Unknown method 'nobody'. Choose from: zsclip"),
        (["FAIR", "synth_cars"], {}, "Unknown method 'FAIR'"),
        (["--trainer", "Fair", "dtd"], {}, "'Fair': there is no configs/trainers/Fair/. Choose one of: CPL CuPL"),
        (["--trainer", "", "dtd"], {}, "Unknown trainer ''"),
        (["--trainer", "../trainers/FAIR", "dtd"], {}, "Unknown trainer"),
        (["fair", "synth_car"], {}, "Unknown data set 'synth_car'. Choose one of: aid birdsnap"),
        (["fair", "synth_cars", "vit"], {}, "There is no config 'vit' of 'fair'. Choose one of: rn50 tiny tiny_rn"),
        (["fair", "synth_cars", "tiny", "one"], {}, "'one' is not a seed"),
        (["fair", "synth_cars", "tiny", "1.5"], {}, "'1.5' is not a seed"),
        (["fair", "synth_cars", "tiny", "--", "A", "1"], {}, "TAG=name"),
        (["fair", "synth_cars", "tiny", "--", "A"], {"TAG": "x"}, "in pairs"),
        (["fair", "synth_cars"], {"TAG": "mine_aligned"}, "Choose another name"),
        (["fair", "stanford_cars"], {"DATA": "/no/such folder"}, "DATA=/no/such folder does not exist"),
    ],
)
def test_wrong_arguments_end_in_one_message(folder, monkeypatch, capfd, arguments, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run(arguments) == 2
    assert message in capfd.readouterr().err and not trained(folder)


# fair eval


def test_eval_uses_the_saved_settings(folder, capfd):
    saved = folder / "results/synth_cars/FAIR/tiny/seed2"
    assert evaluate(["synth_cars", "2"]) == 2
    assert re.search(rf"No run in {saved}. Train it first: .* run fair synth_cars tiny 2$", capfd.readouterr().err)
    saved.mkdir(parents=True)
    (saved / "config.yaml").touch()
    assert evaluate(["synth_cars", "2", "--", "TRAINER.FAIR.CROP_INFERENCE", "True"]) == 0
    (call,) = trained(folder)
    assert call[:5] == ["--eval-only", "--model-dir", str(saved), "--output-dir", str(saved / "eval")]
    assert call[-4:] == ["--config-file", str(saved / "config.yaml"), "TRAINER.FAIR.CROP_INFERENCE", "True"]
    assert "noise of a run" in capfd.readouterr().out


def test_eval_of_plain_self_training(folder, monkeypatch, capfd):
    monkeypatch.setenv("TAG", "aligned")
    assert evaluate(["synth_cars", "2"]) == 2
    err = capfd.readouterr().err
    assert "tiny_aligned/seed2. Train it first: " in err and "TAG=" not in err
    monkeypatch.setenv("TAG", "mine_plain")
    assert evaluate(["synth_cars", "2"]) == 2
    assert "tiny_mine_plain/seed2. Train it first: TAG=mine " in capfd.readouterr().err


def test_eval_ends_with_the_first_test_that_fails(folder):
    for seed in (13, 1):
        (folder / f"results/synth_cars/FAIR/tiny/seed{seed}").mkdir(parents=True)
        (folder / f"results/synth_cars/FAIR/tiny/seed{seed}/config.yaml").touch()
    assert evaluate(["synth_cars", "13", "1"]) == 1 and len(trained(folder)) == 1


def test_a_quick_look_is_one_seed_in_folders_of_its_own(folder, capfd, monkeypatch):
    assert run(["fair", "synth_cars", "--quick"]) == 0
    calls = [" ".join(call) for call in trained(folder)]
    assert all("_quick" in place and place.endswith("seed1") for place in places(folder))
    assert all(" OPTIM.MAX_EPOCH 3" in call for call in calls if "--trainer FAIR" in call)
    assert "This was a first look: one seed, 3 epochs" in capfd.readouterr().out
    for words, tag in ((["2", "--quick"], ""), (["--quick", "--", "OPTIM.LR", "0.1"], ""), (["--quick"], "own")):
        monkeypatch.setenv("TAG", tag)
        assert run(["fair", "synth_cars", *words]) == 2
        assert "--quick chooses seed, TAG and options itself" in capfd.readouterr().err
    monkeypatch.setenv("TAG", "")
    assert run(["fair", "synth_cars", "--quick", "--", "OPTIM.LRR", "0.1"]) == 2  # a typo is said first
    assert "there is no config key OPTIM.LRR, did you mean OPTIM.LR?" in capfd.readouterr().err
