"""UCF101: 101 human actions (Soomro et al., 2012), the middle frame of each video, as CoOp uses it."""

import re
from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.annotations import read_lines
from fairclip.data.benchmark import Benchmark
from fairclip.data.classes import class_folders, class_list, match_classes
from fairclip.data.copies import Copy
from fairclip.data.sources import Source


@DATASET_REGISTRY.register()
class UCF101(Benchmark):
    """Labels follow classInd.txt, which is not quite sorted: Hammering comes before HammerThrow.

    The lists name videos "v_HandStandPushups_..." of the class HandstandPushups; on disk
    and in lists both spellings occur.
    """

    dataset_dir = "ucf101"
    other_names = ("ucf-101", "ucf_101", "ucf-101-midframes", "ucf101-midframes")
    split_file = "split_zhou_UCF101.json"
    drive_id = "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"
    rule = "trainval"
    counts = {"zhou": (7639, 1898, 3783), "official": (9537, 0, 3783)}
    sources = (
        Source(
            url="https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            path="ucfTrainTestlist",
            size=113_943,
            checksum="5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
            inside=".",
            needless="CoOp's split file takes its place",
        ),
        Source(
            url="drive:10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O",
            path="UCF-101-midframes",
            inside=".",
        ),
    )
    how_to_get = """
UCF101 is expected as one frame of each video, not as videos:
  {folder}/
    UCF-101-midframes/Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg ...   (13,320)
    ucfTrainTestlist/trainlist01.txt, testlist01.txt   (not needed with the split file)
    split_zhou_UCF101.json                             (7,639 train, 1,898 val, 3,783 test)
Also read: folders ApplyEyeMakeup/, train/<class>/ and test/<class>/ (or val/<class>/) folders.
How to get it: {fair} data fetch ucf101, or by hand
  - frames: gdown 10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O -O UCF-101-midframes.zip
    or in a browser  https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O
  - lists: https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip (113,943 bytes)
  - split: CoOp's file, fetched if it is missing, or with
      gdown 1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y -O split_zhou_UCF101.json
    or in a browser  https://drive.google.com/file/d/1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        classes = class_list(cls.dataset_dir)
        images = tuple(
            (f"{_folder(classes[label][1])}/", folder / name) for name, label in class_folders(folder, classes).items()
        )
        return [Copy(f"class folders in {folder.name}/", folder, images)] if images else []

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        split: dict[str, list[tuple[str, str]]] = {}
        for part in ("train", "test"):
            # "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1"; the test list has no numbers.
            file = copy.note(f"ucfTrainTestlist/{part}list01.txt", f"{part}list01.txt")
            videos = [line.split()[0].rpartition("/") for line in read_lines(file)]
            usual = _usual_spelling({action for action, _, _ in videos}, class_list(cls.dataset_dir))
            split[part] = [
                (f"{_folder(usual[action])}/{v.removesuffix('.avi')}.jpg", usual[action]) for action, _, v in videos
            ]
        return split

    @classmethod
    def tree_key(cls, part: str, source: str) -> str:
        return f"{_folder(source)}/"


def _folder(source: str) -> str:
    """CoOp's folder, which is its class name, too: "Apply_Eye_Makeup" for "ApplyEyeMakeup"."""
    return "_".join(re.findall("[A-Z][^A-Z]*", source))


def _usual_spelling(actions: set[str], classes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The official name of each action: some lists have "HandStandPushups" for "HandstandPushups"."""
    labels = match_classes(actions, classes)
    return {action: classes[labels[action]][1] if action in labels else action for action in actions}
