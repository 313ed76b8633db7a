"""How a user's function is called, what of its network is refused, and that weights have to fit it tensor by tensor."""

import struct

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from harness.errors import BadInput
from harness.models.architectures import build, half_size, kind_of, takes
from harness.models.own_checks import check_logits, check_weights, tensors_of
from harness.models.own_code import code_named
from harness.models.own_networks import own_network
from harness.models.own_weights import OwnWeights
from harness.models.weights import forget_places, load_into, module_with, save_network, saved_architecture
from harness.types import Architecture, Split

CODE = '''
import torch
from torch import nn

SEEN = []

class Rows(nn.Module):
    def __init__(self, features, classes, hidden=6, widths=()):
        super().__init__()
        SEEN.append((features, classes, hidden, widths))
        sizes = [features, *widths, hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.out = nn.Linear(hidden, classes)

    def forward(self, rows):
        for layer in self.layers:
            rows = layer(rows).relu()
        return self.out(rows)

class Tied(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.first = nn.Linear(features, features, bias=False)
        self.before = nn.Linear(features, features, bias=False)
        self.before.weight = self.first.weight

    def forward(self, rows):
        return self.before(self.first(rows).relu())

class Gives(nn.Linear):
    def forward(self, rows):
        return GIVEN(super().forward(rows))

def tuple_(): global GIVEN; GIVEN = lambda found: (found, 1); return Gives(4, 3)
def integers(): global GIVEN; GIVEN = lambda found: found.argmax(1); return Gives(4, 3)
def row(): global GIVEN; GIVEN = lambda found: found.mean(0); return Gives(4, 3)
def double(): return nn.Linear(4, 3, dtype=torch.float64).requires_grad_(False)
def anything(**options): return nn.Linear(4, options["out"])
def wide(): return nn.Linear(4, 5)
def image(): return nn.Conv2d(1, 3, 3)
def video(): return nn.Sequential(nn.Unflatten(1, (1, 2, 2, 1)), nn.Conv3d(1, 3, 1), nn.Flatten(2), nn.Flatten(1), nn.Linear(12, 3))
def nothing(): pass
def lazy(): return nn.LazyLinear(3)
def bare(): return nn.Flatten()
ONE = nn.Linear(4, 3)
def one(): return ONE
def part(): return nn.Sequential(ONE, nn.Linear(3, 3))
'''  # noqa: E501


@pytest.fixture
def made(tmp_path):
    """Architectures of the functions in a file, by the function's name and options."""
    (tmp_path / "net.py").write_text(CODE)

    def architecture(function, **options):
        shape = (("classes", 3), ("features", 4))
        given = {"build": code_named(f"net.py:{function}", tmp_path), "shape": shape, **options}
        return Architecture("table_module", tuple(sorted(given.items())))

    return architecture


@pytest.fixture
def split():
    return Split("heldout", torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(5), "abcde", "",
                 kind="tabular")  # fmt: skip


def test_it_is_called_with_its_options_and_what_it_takes_of_the_tasks_shape(made):
    network = build(made("Rows", hidden=8, widths=(5, 7)))
    assert [tuple(layer.weight.shape) for layer in network.layers] == [(5, 4), (7, 5), (8, 7)]
    assert type(network).forward.__globals__["SEEN"] == [(4, 3, 8, [5, 7])]  # a list, as a suite says it
    assert network.out.weight.shape == (3, 8)
    assert kind_of(made("Rows")) == "tabular"
    assert build(made("anything", out=3)).weight.shape == (3, 4)


def test_a_seed_draws_its_weights(made):
    def drawn(seed):
        torch.manual_seed(seed)
        return build(made("Rows")).out.weight

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_it_is_float32_and_laid_out_as_it_was_made_with_nothing_frozen(made):
    assert build(made("double")).weight.dtype == torch.float32
    assert build(made("double")).weight.requires_grad
    assert build(made("image")).weight.is_contiguous()
    assert build(made("video"))[1].weight.is_contiguous()  # which no layout of images is for


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        ("Rows", {"hiden": 3}, "'net:Rows' takes no option 'hiden'; did you mean 'hidden'? (known: classes, "),
        ("wide", {"out": 3}, "'net:wide' takes no option 'out'"),
        ("nothing", {}, "'net:nothing' returns None, and no torch.nn.Module"),
        ("lazy", {}, "'net:lazy' returns a network with lazy layers"),
        ("bare", {}, "'net:bare' returns a network without parameters"),
        ("one", {}, "'net:one' returns the same tensors at every call; it has to build a new network"),
        ("part", {}, "'net:part' returns the same tensors at every call"),
        ("image", {}, "net.py: the network of 'net:image' fails on the task's examples: "),
        ("wide", {}, "the network of 'net:wide' gives logits [2, 5] for 2 examples, and the task has 3 labels"),
        ("tuple_", {}, "the network of 'net:tuple_' gives a tuple, and no logits"),
        ("integers", {}, "the network of 'net:integers' gives a Tensor, and no logits"),
        ("row", {}, "the network of 'net:row' gives logits [3] for 2 examples"),
    ],
)
def test_what_is_no_classifier_of_the_task_is_refused(made, split, function, options, words):
    def check():
        tensors_of(made(function, **options))
        check_logits(made(function, **options), split, 3)

    with pytest.raises(BadInput) as caught:
        check()
    message = str(caught.value)
    assert words.removeprefix("net.py: ") in message
    assert "\n" not in message


def test_a_classifier_of_the_task_is_not(made, split):
    for architecture in (made("Rows"), made("video"), made("double"), made("anything", out=3)):
        tensors_of(architecture)
        check_logits(architecture, split, 3)


def test_an_option_that_it_needs_and_is_not_given_is_named(made):
    options = dict(made("Rows").options)
    with pytest.raises(BadInput, match="'net:Rows' needs the option 'features'; name it under 'options'"):
        own_network(build=options["build"], shape=(("classes", 3),))


def test_half_its_size_is_half_the_width_that_it_takes(made):
    assert dict(half_size(made("Rows")).options)["hidden"] == 3
    assert dict(half_size(made("Rows", hidden=9)).options)["hidden"] == 4
    with pytest.raises(BadInput, match="'net:Tied' takes no number as width or hidden"):
        half_size(made("Tied"))
    assert not takes(made("Rows"), "hidden")  # what it makes of it, nobody knows


@pytest.mark.parametrize("options", [{}, {"widths": (3, 5), "hidden": 4}])
def test_a_folder_brings_back_the_architecture_and_tells_others_no_place(made, tmp_path, options):
    architecture = made("Rows", **options)
    network = build(architecture).eval()
    save_network(architecture, network, tmp_path)
    again = saved_architecture(tmp_path)
    assert (again, hash(again), str(again)) == (architecture, hash(architecture), str(architecture))
    rows = torch.randn(3, 4)
    assert torch.equal(module_with(again, load_file(tmp_path / "model.safetensors"))(rows), network(rows))
    forget_places(tmp_path)
    assert saved_architecture(tmp_path) == architecture
    assert str(tmp_path) not in (tmp_path / "architecture.json").read_text()


# Weights


def stored(made, tmp_path, change=lambda tensors: tensors, function="Rows"):
    tensors = {name: tensor.clone() for name, tensor in build(made(function)).state_dict().items()}
    save_file(change(tensors), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {n: v for n, v in t.items() if n != "out.bias"}, "'out.bias' is missing"),
        (lambda t: {**t, "more": torch.zeros(1)}, "'more' is not one of its tensors"),
        (lambda t: {**t, "out.bias": torch.zeros(4)}, "'out.bias' is [4], not [3]"),
        (lambda t: {**t, "out.bias": torch.zeros(3, dtype=torch.int8)}, "'out.bias' holds int8 numbers"),
        (lambda t: {f"module.{n}": v for n, v in t.items()},
         "'layers.0.weight' is missing; its names begin with 'module.': save the network that is inside"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(made, tmp_path, change, words):
    file = stored(made, tmp_path)
    check_weights(file, made("Rows"))
    file = stored(made, tmp_path, change)
    with pytest.raises(BadInput) as caught:
        check_weights(file, made("Rows"))
    assert str(caught.value) == f"{file}: the weights do not fit the network: {words}"
    if "int8" not in words:  # which would be taken for floating-point numbers
        with pytest.raises(ValueError, match="the weights do not fit the network"):
            load_into(build(made("Rows")), load_file(file))


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_is_refused_whatever_it_is_called(made, tmp_path, new):
    for name in ("w.pt", "w.safetensors"):
        torch.save(build(made("Rows")).state_dict(), tmp_path / name, _use_new_zipfile_serialization=new)
        with pytest.raises(BadInput, match=r"it is a pickle, which is not read; write .*safetensors\.torch"):
            check_weights(tmp_path / name, made("Rows"))


@pytest.mark.parametrize("content", [b"", b"\0" * 20, struct.pack("<Q", 10**9) + b"{}", b"weights"])
def test_a_file_that_is_no_safetensors_file_is_refused(made, tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match=r"w\.safetensors cannot be read: .*was it cut off"):
        check_weights(tmp_path / "w.safetensors", made("Rows"))
    with pytest.raises(BadInput, match="there is no such file"):
        check_weights(tmp_path / "nowhere.safetensors", made("Rows"))


@pytest.mark.parametrize("how", ["first", "second", "both", "save_model"])
def test_tied_tensors_are_read_under_whichever_name_the_file_has(made, tmp_path, how):
    architecture, file = made("Tied"), tmp_path / "w.safetensors"
    network: nn.Module = build(architecture).eval()
    names = list(network.state_dict())
    if how == "save_model":
        save_model(network, str(file))
    else:
        kept = {"first": names[:1], "second": names[1:], "both": names}[how]
        save_file({name: network.state_dict()[name].clone() for name in kept}, file)
    check_weights(file, architecture)
    weights = OwnWeights(file, architecture)
    assert list(weights) == names[:1]
    rows = torch.randn(3, 4)
    assert torch.equal(module_with(architecture, weights)(rows), network(rows))


def test_tied_tensors_with_different_values_are_refused(made, tmp_path):
    file = stored(made, tmp_path, lambda t: {**t, "before.weight": t["before.weight"] + 1}, "Tied")
    with pytest.raises(BadInput, match=r"'first\.weight' and 'before\.weight' are tied, and given different values"):
        check_weights(file, made("Tied"))


def test_weights_keep_the_precision_that_they_are_stored_in(made, tmp_path):
    file = stored(made, tmp_path, lambda t: {name: tensor.bfloat16() for name, tensor in t.items()})
    check_weights(file, made("Rows"))
    weights = OwnWeights(file, made("Rows"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert module_with(made("Rows"), weights).out.weight.dtype == torch.float32
    assert "out.weight" in weights
    assert "nowhere" not in weights
