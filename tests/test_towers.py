"""Passes through the image tower in pieces: the same features and gradients, and what happens without memory."""

import copy
import gc
import sys
import weakref

import pytest
import torch
import toys
from commands import train
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from toys import build, checkpoint, make_data, run, same, save_clip, untimed

import fairclip.run.build
import trainers.upl
from fairclip.backbones import towers
from fairclip.backbones.backbone import norm_parameters
from fairclip.backbones.makers import load_backbone
from fairclip.backbones.openai import load_clip
from fairclip.backbones.towers import ImageClassifier, Passes, channels_last, images_that_fit, out_of_memory
from fairclip.core.errors import UserError
from fairclip.method.anchors import AnchorClassifier
from fairclip.method.context import ContextClassifier
from fairclip.method.ema import EMA
from fairclip.method.linear_probe import ProbeClassifier
from fairclip.method.visual_prompts import PromptedClassifier

EPOCH = ("OPTIM.MAX_EPOCH", "1", "TEST.NO_TEST", "True")
CROPS = ("TRAINER.FAIR.N_CROPS", "2", "TRAINER.FAIR.TOP_K", "1")
TEXT = ("TRAINER.LAFTER.TEXT_STEPS", "2", "TRAINER.LAFTER.N_PROMPTS", "2")


def settings(trainer: str) -> tuple[str, ...]:
    return {"FAIR": CROPS, "LaFTer": TEXT, "microCLIP": ("TRAINER.MICROCLIP.N_CROPS", "2")}.get(trainer, ())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=6, test=2)  # two steps an epoch


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return load_clip(str(save_clip(tmp_path_factory.mktemp("clip") / "rn.pt", "resnet"))).visual


@pytest.fixture(autouse=True)
def console(monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)


def images(count: int, pixels: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed))


def classifier(clip, prec: str = "fp32", **passes) -> AnchorClassifier:
    anchors = F.normalize(images(3, 4).flatten(1)[:, :16], dim=1)
    model = AnchorClassifier(copy.deepcopy(clip.visual), anchors, 20.0, prec)
    model.passes = Passes(**passes)
    return model


class Sizes:
    """Counts the images of each pass through a tower, and whether it built a graph."""

    def __init__(self, visual: torch.nn.Module) -> None:
        self.graph, self.free = [], []
        visual.register_forward_pre_hook(self.note)

    def note(self, _, inputs) -> None:
        (self.graph if torch.is_grad_enabled() else self.free).append(len(inputs[0]))


# -- Pieces ------------------------------------------------------------------------------------------------------------


def test_all_classifiers_share_the_passes(tiny_clip):
    visual = copy.deepcopy(tiny_clip.visual)
    models = [
        AnchorClassifier(visual, torch.eye(3, 16), 1.0),
        ContextClassifier(tiny_clip, ["car"], torch.zeros(1, 2, 32)),
        PromptedClassifier(visual, torch.zeros(2, 64), torch.eye(3, 16)),
        ProbeClassifier(visual, 16, 3, "fp32"),
    ]
    x = images(5)
    for model in models:
        assert isinstance(model, ImageClassifier) and not model.train().training
        model.passes = Passes(chunk=2)
        expected = F.normalize(tiny_clip.visual(x), dim=-1)
        with torch.no_grad():
            torch.testing.assert_close(model.encode(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("chunk", "sizes"), [(0, [3, 3, 3, 3]), (4, [4, 4, 4]), (5, [4, 4, 4]), (99, [12])])
def test_views_are_encoded_in_equal_pieces(tiny_clip, chunk, sizes):
    model, views = classifier(tiny_clip, chunk=chunk), images(12).view(3, 4, 3, 32, 32)
    seen = Sizes(model.visual)
    features = model.encode_views(views)
    assert seen.free == sizes and not seen.graph
    expected = F.normalize(tiny_clip.visual(views.flatten(0, 1)), dim=-1).view(3, 4, 16)
    torch.testing.assert_close(features, expected.detach(), rtol=0, atol=1e-5)


def test_features_without_gradients_can_be_learned_from(tiny_clip):
    model = classifier(tiny_clip)
    model.anchors.requires_grad_(True)
    with torch.no_grad():
        z = model.encode(images(4))
    assert not z.is_inference() and not z.requires_grad
    (z @ model.anchors().t()).sum().backward()
    assert model.anchors.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("prec", ["fp32", "bf16"])
def test_micro_batches_have_the_gradients_of_the_batch(tiny_clip, prec):
    gradients = {}
    for micro in (0, 3):
        model = classifier(tiny_clip, prec, micro_batch=micro)
        model.requires_grad_(True)
        seen = Sizes(model.visual)
        probs = model(images(8)).softmax(dim=1)
        (probs[:, 0].log().mean() - probs.mean(dim=0).log().mean()).backward()  # the latter needs the whole batch
        gradients[micro] = {name: p.grad for name, p in model.named_parameters()}
        assert seen.graph == ([3, 3, 2, 2, 3, 3] if micro else [8])  # again in the backward pass, from its end
    # Single precision: 1e-6 of the tensor's own size. The pieces of bfloat16 add up what they rounded apart.
    share = 1e-6 if prec == "fp32" else 0.05
    for name, gradient in gradients[0].items():
        error = (gradients[3][name] - gradient).abs().max()
        assert gradient.dtype == torch.float32 and error <= share * gradient.abs().max().clamp_min(1.0), name


@pytest.mark.parametrize("trainer", ["FAIR", "MUST", "DPA", "LaFTer", "microCLIP"])
def test_every_trainer_of_the_tower_keeps_to_its_pieces(data, backbone, tmp_path, trainer):
    batch, gradients = None, []
    for limits in ((), ("TRAIN.CHUNK", "3", "TRAIN.MICRO_BATCH", "3")):
        out = tmp_path / str(len(gradients))
        built = build(trainer, data, backbone, out, *EPOCH, *settings(trainer), *limits)
        built.num_batches, built.batch_idx = 2, 0
        built.before_epoch()
        batch = batch or next(iter(built.train_loader_x))
        seen = Sizes(built.model.visual.conv1)  # LaFTer's prompts go around the tower's own forward
        built._optims[trainer.lower()].step = lambda: None
        built.forward_backward(batch)
        assert seen.graph and (max(seen.graph + seen.free) <= 3) == bool(limits)
        gradients.append({n: p.grad for n, p in built.model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        error = (gradients[1][name] - gradient).abs().max()
        assert error <= 1e-5 * max(1.0, gradient.abs().max()), name


# -- Memory ------------------------------------------------------------------------------------------------------------


def test_the_chunk_follows_free_memory(monkeypatch):
    passes = []
    monkeypatch.setattr(towers, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(towers, "peak_bytes", lambda work, device: (work(), 10 * 16)[1])
    assert images_that_fit(lambda piece: passes.append(len(piece)), images(16)) == 50  # half of 1000 in tens
    assert passes == [16, 16]
    monkeypatch.setattr(towers, "free_bytes", lambda device: 1)
    assert images_that_fit(lambda piece: None, images(16)) == 1


def test_halving():
    passes = Passes(micro_batch=6)
    assert [len(piece) for piece in passes.split(images(8), "micro_batch")] == [4, 4]
    assert passes.halve() == "TRAIN.MICRO_BATCH 2" and (passes.chunk, passes.micro_batch) == (0, 2)
    passes.split(images(9), "chunk")
    assert passes.halve() == "TRAIN.CHUNK 4"
    passes.split(images(1), "chunk")
    assert passes.halve() is None


def test_what_counts_as_out_of_memory():
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


class SmallMemory:
    """Stands in for a GPU: passes of more than so many images run out of memory, also while a graph is unrolled."""

    def __init__(self, monkeypatch, limit: int) -> None:
        self.limit, self.failures = limit, 0
        original = ImageClassifier.__init__

        def init(model, visual, *args) -> None:
            original(model, visual, *args)
            visual.register_forward_pre_hook(self.check)

        monkeypatch.setattr(ImageClassifier, "__init__", init)

    def __deepcopy__(self, memo: dict) -> "SmallMemory":
        return self  # a teacher's passes count too

    def check(self, _, inputs) -> None:
        if len(inputs[0]) > self.limit:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def trained(out, trainer):
    state = checkpoint(out, trainer, 1)
    return {key: state[key] for key in ("state_dict", "optimizer", "extra")}, untimed(state["history"])


# Of FAIR three views of each of the 8 images have a gradient: the strong one and two crops.
@pytest.mark.parametrize(("trainer", "learned"), [("FAIR", [24, 12, 6]), ("DPA", [8]), ("MUST", [8])])
def test_halved_pieces_are_as_if_memory_had_never_run_out(data, backbone, tmp_path, monkeypatch, trainer, learned):
    opts = ("OPTIM.MAX_EPOCH", "1", *settings(trainer))
    set_to = ("TRAIN.CHUNK", "4", "TRAIN.MICRO_BATCH", str(learned[-1] // 2))
    run(trainer, data, backbone, tmp_path / "set", *opts, *set_to)
    with monkeypatch.context() as patch:
        memory = SmallMemory(patch, 4)
        run(trainer, data, backbone, tmp_path / "halved", *opts, "TRAIN.AUTO_CHUNK", "True")
    lines = [line for line in (tmp_path / "halved/log.txt").read_text().splitlines() if "Out of memory" in line]
    assert memory.failures == len(lines) and lines == [
        "Out of memory with 8 images at once: TRAIN.CHUNK 4 from here on",
        *(f"Out of memory with {n} images at once: TRAIN.MICRO_BATCH {n // 2} from here on" for n in learned),
    ]
    assert same(trained(tmp_path / "halved", trainer), trained(tmp_path / "set", trainer))
    predictions = [(tmp_path / name / "predictions.csv").read_text() for name in ("set", "halved")]
    assert predictions[0] == predictions[1]


def test_a_failing_backward_pass_leaves_no_trace(data, backbone, tmp_path, monkeypatch):
    """Memory runs out when everything but the gradients has been computed."""
    run("DPA", data, backbone, tmp_path / "set", "OPTIM.MAX_EPOCH", "1", "TRAIN.MICRO_BATCH", "4")
    backward, failed = torch.Tensor.backward, []

    def fail_once(tensor, *args, **kwargs):
        backward(tensor, *args, **kwargs)
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch.Tensor, "backward", fail_once)
    auto = ("OPTIM.MAX_EPOCH", "1", "TRAIN.AUTO_CHUNK", "True")
    run("DPA", data, backbone, tmp_path / "halved", *auto)
    assert failed and same(trained(tmp_path / "halved", "DPA"), trained(tmp_path / "set", "DPA"))


@pytest.mark.parametrize(("auto", "limit"), [("False", 4), ("True", 0)])
def test_out_of_memory_names_the_settings(data, backbone, tmp_path, monkeypatch, capsys, auto, limit):
    SmallMemory(monkeypatch, limit)
    argv = toys.arguments("FAIR", data, backbone, tmp_path, *EPOCH, *CROPS, "TRAIN.AUTO_CHUNK", auto)
    assert train(argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("Error: out of memory (CUDA out of memory. Tried to allocate 2 GiB)")
    for setting in ("TRAIN.CHUNK", "TRAIN.MICRO_BATCH (now 0", "BATCH_SIZE (now 8", "TRAINER.FAIR.PREC (now fp32"):
        assert setting in message
    assert f"after a pass of {8 if limit else 1} images" in message
    assert ("set TRAIN.AUTO_CHUNK True" in message) == (auto == "False")


def test_a_step_that_has_moved_parameters_is_not_done_again(data, backbone, tmp_path):
    trainer = build("FAIR", data, backbone, tmp_path, *EPOCH, *CROPS, "TRAIN.AUTO_CHUNK", "True")
    trainer.before_epoch()
    calls = []

    def fail():
        calls.append(True)
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.mean_prediction, trainer._optims["fair"].step = None, fail
    with pytest.raises(UserError, match="out of memory"):
        trainer.memory_guard.run(trainer.forward_backward, next(iter(trainer.train_loader_x)))
    assert len(calls) == 1


def test_other_errors_pass(data, backbone, tmp_path):
    trainer = build("FAIR", data, backbone, tmp_path, *EPOCH, *CROPS)
    with pytest.raises(RuntimeError, match="shapes"):
        trainer.memory_guard.run(torch.mm, torch.ones(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize("key", ["CHUNK", "MICRO_BATCH"])
def test_sizes_are_not_negative(data, backbone, tmp_path, key):
    with pytest.raises(UserError, match=f"TRAIN.{key} -1"):
        build("FAIR", data, backbone, tmp_path, f"TRAIN.{key}", "-1")


def test_pieces_are_no_other_configuration(data, backbone, tmp_path):
    plain, cut = (
        build("FAIR", data, backbone, tmp_path, *opts).config_hash
        for opts in ((), ("TRAIN.CHUNK", "3", "TRAIN.MICRO_BATCH", "3", "TRAIN.AUTO_CHUNK", "True"))
    )
    assert plain == cut


# -- Attention, precision, layout, compiling ---------------------------------------------------------------------------


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("prec", ["fp32", "bf16"])
def test_attention_is_fused_and_weighs_nothing_out(tiny_clip, monkeypatch, gradients, prec):
    fused, calls = F.scaled_dot_product_attention, []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: (calls.append(1), fused(*a, **k))[1])
    # What the branch that returns weights is made of.
    monkeypatch.setattr(torch, "baddbmm", lambda *a, **k: pytest.fail("attention weights are computed"))
    monkeypatch.setattr(torch, "bmm", lambda *a, **k: pytest.fail("attention weights are computed"))
    model = classifier(tiny_clip, prec).requires_grad_(True)
    with torch.set_grad_enabled(gradients):
        model.encode(images(2))
    assert len(calls) == 2  # one for each block


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_bfloat16_trains_parameters_in_full_precision(tiny_clip, resnet, tower):
    visual, pixels = (tiny_clip.visual, 32) if tower == "vit" else (resnet, 32)
    model = AnchorClassifier(copy.deepcopy(visual), torch.eye(3, 16), 1.0, "bf16")
    norms = norm_parameters(model.visual)
    for parameter in norms.values():
        parameter.requires_grad_(True)
    model(images(4, pixels)).softmax(dim=1)[:, 0].sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in norms.values())
    assert sum(p.grad.abs().sum() for p in norms.values()) > 0


def test_channels_last_changes_a_resnet_in_memory_alone(tiny_clip, resnet):
    changed = copy.deepcopy(resnet)
    channels_last(changed)
    assert changed.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert not resnet.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(changed(images(2)), resnet(images(2)), rtol=1e-4, atol=1e-5)
    vit = copy.deepcopy(tiny_clip.visual)
    channels_last(vit)
    assert vit.conv1.weight.is_contiguous()


def test_compiled_towers_keep_their_names(tiny_clip, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda f, *a, **k: lambda *x: (calls.append(1), f(*x))[1])
    plain, model = classifier(tiny_clip), classifier(tiny_clip, compiled=True)
    model.anchors.requires_grad_(True)
    teacher = EMA(model)
    torch.testing.assert_close(model(images(2)), plain(images(2)))
    student = len(calls)
    torch.testing.assert_close(teacher.model(images(2)), plain(images(2)).detach())
    assert 0 < student < len(calls) and teacher.model.passes is model.passes
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert copy.deepcopy(model).visual.transformer._compiled_call_impl is None  # it would run the original


def test_without_a_compiler_nothing_changes(tiny_clip, monkeypatch, caplog):
    def broken(function, *args, **kwargs):
        def fail(*inputs):
            raise RuntimeError("no C++ compiler\nmany lines more")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    plain, model = classifier(tiny_clip), classifier(tiny_clip, compiled=True)
    for _ in range(2):
        assert torch.equal(model(images(2)), plain(images(2)))
    assert caplog.messages == ["MODEL.COMPILE has no effect, compiling failed: no C++ compiler"]


# -- What a run holds, and waits for -----------------------------------------------------------------------------------

ALL = [
    "FAIR",
    "MUST",
    "DPA",
    "LaFTer",
    "UPL",
    "CPL",
    "GRIP",
    "PromptLearning",
    "LinearProbe",
    "WCA",
    "CuPL",
    "TransCLIP",
    "ZLaP",
    "StatA",
    "TDA",
    "ZeroshotCLIP",
    "ZeroshotCLIP2",
    "microCLIP",
]


@pytest.mark.parametrize("trainer", ALL)
def test_text_towers_are_let_go(data, backbone, tmp_path, monkeypatch, trainer):
    texts = []

    def load(*args):
        backbone = load_backbone(*args)
        texts.append(weakref.ref(backbone.openai.transformer))
        return backbone

    for module in (fairclip.run.build, trainers.upl):
        monkeypatch.setattr(module, "load_backbone", load)
    built = build(trainer, data, backbone, tmp_path, *EPOCH, *settings(trainer))
    if trainer == "UPL":
        built.zero_shot_probabilities()
    gc.collect()
    assert len(texts) == (2 if trainer == "UPL" else 1) and not any(text() for text in texts)


class Waiting(TorchDispatchMode):
    """Notes operations that make the host wait for a GPU: reading a number, or counting what a mask keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if mask or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("trainer", ["FAIR", "MUST", "DPA", "LaFTer", "PromptLearning", "microCLIP"])
def test_a_step_reads_nothing_back(data, backbone, tmp_path, trainer):
    built = build(trainer, data, backbone, tmp_path, *EPOCH, *settings(trainer))
    built.num_batches, built.batch_idx = 2, 0
    built.before_epoch()
    batch = next(iter(built.train_loader_x))
    # Adam's count of steps, and the labels of the batch, are on the host.
    built._optims[trainer.lower()].step = lambda: None
    built.pseudo_accuracy = lambda *args: {}
    with Waiting() as waiting:
        float(torch.ones(()))
        built.forward_backward(batch)
    assert waiting.found == ["_local_scalar_dense"]  # the one above
