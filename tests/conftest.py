"""Before any test module is imported: one thread, the repository on the path, and a Dassl."""

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["FAIR_COMMAND"] = "fair"  # what messages call it, however the tests were started
ROOT = Path(__file__).resolve().parents[1]

import pytest  # noqa: E402
import torch  # noqa: E402
from made_up_runs import one_set, two_sets  # noqa: E402, F401 (fixtures)
from server import Raw, Server  # noqa: E402
from tqdm import tqdm  # noqa: E402

from fairclip.backbones import precision  # noqa: E402
from fairclip.core import toolbox  # noqa: E402
from fairclip.core.log import show_messages  # noqa: E402

# Forks of tests would share tqdm's lock: one that is killed while it holds it would leave all others waiting for ever,
# and so would a fork while tqdm's own thread holds it.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())
show_messages()  # before pytest adds its own handlers: tests look for messages in what is printed
torch.set_num_threads(1)
precision.bfloat16_speed = lambda device: 1.0  # tests compute in float32 unless they say so, on any machine
DASSL = toolbox.use_dassl(announce=False)
if DASSL == "upstream":
    from dassl.utils import Logger

    Logger.__del__ = lambda self: None  # it would close the console that it wraps: here, pytest's capture


def pytest_report_header() -> str:
    return f"dassl: {DASSL}"


def pytest_collection_finish() -> None:
    """What is there by now stays to the end: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def console(monkeypatch):
    """For modules whose runs replace sys.stdout, as Dassl's setup_logger does: give it back after each test."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)


@pytest.fixture(scope="session")
def tiny_clip():
    """A small CLIP with random weights: ViT of 32 px in patches of 8, 16 features. Shared: copy it to change it."""
    from clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(
            embed_dim=16,
            image_resolution=32,
            vision_layers=2,
            vision_width=64,
            vision_patch_size=8,
            context_length=77,
            vocab_size=49408,
            transformer_width=32,
            transformer_heads=2,
            transformer_layers=2,
        )
    return model.float().eval()


# What runs in many modules start from. Whoever changes any of it takes a copy.


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """The toy data set."""
    from toys import make_data

    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def vit(tmp_path_factory) -> Path:
    """A random CLIP with a small ViT, as a file."""
    from toys import save_clip

    return save_clip(tmp_path_factory.mktemp("clip") / "vit.pt")


@pytest.fixture(scope="session")
def backbone(vit) -> Path:
    """The same: modules with several towers have one of their own."""
    return vit


@pytest.fixture(scope="session")
def few(tmp_path_factory) -> Path:
    """The toy data set with few images: 12 and 9."""
    from toys import make_data

    return make_data(tmp_path_factory.mktemp("few"), train=4, test=3)


@pytest.fixture(scope="session")
def short_run(few, vit, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a finished run of a method on these, by its key in configs/methods.txt."""
    from short_runs import short_runs

    return short_runs(few, vit, tmp_path_factory.mktemp("short"))


@pytest.fixture(scope="session")
def finished(data, backbone, tmp_path_factory) -> Path:
    """The folder of a finished run of FAIR."""
    from toys import run

    out = tmp_path_factory.mktemp("finished")
    run("FAIR", data, backbone, out, "OPTIM.LR", "1e-3")
    return out


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[[bytes], Server]]:
    """Starts servers, each with the body it is given; nobody waits between attempts."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    servers = []

    def start(body: bytes) -> Server:
        servers.append(Server(body))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def raw(monkeypatch) -> Iterator[Callable[..., str]]:
    """Starts servers that answer with bytes, see ``Raw``, and gives their addresses; nobody waits between attempts."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    servers = []

    def start(answer: bytes, **more: bool) -> str:
        servers.append(Raw(answer, **more))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return servers[-1].url

    yield start
    for server in servers:
        server.pause.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache folder of its own for every test, so that none leaves traces in the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FAIR_CACHE", str(folder))
    return folder
