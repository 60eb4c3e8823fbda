"""What torchvision calls the layers of the Inception networks."""

from typing import Any

import jax  # noqa: F401  (the doctests)

from dlkit.models.vision.names import named

__all__ = ["inception_v1_names", "inception_v3_names"]

LEAF = {"conv": "conv", "norm": "bn"}  # of a unit
BODY = r"(?:body/\d/)?"  # where there are heads, the network is in pieces
V3_STEM = {"1": "Conv2d_1a_3x3", "2": "Conv2d_2a_3x3", "3": "Conv2d_2b_3x3", "4": "Conv2d_3b_1x1", "5": "Conv2d_4a_3x3"}
POOL = "branch_pool"
# torchvision's name of each branch, and what its convolutions are called: "{}" is their number where there are several.
A = {"1": "branch1x1", "2": "branch5x5_{}", "3": "branch3x3dbl_{}", "4": POOL}
B = {"1": "branch3x3", "2": "branch3x3dbl_{}"}
C = {"1": "branch1x1", "2": "branch7x7_{}", "3": "branch7x7dbl_{}", "4": POOL}
D = {"1": "branch3x3_{}", "2": "branch7x7x3_{}"}
E = {"1": "branch1x1", "2": "branch3x3_{}", "3": "branch3x3dbl_{}", "4": POOL}
V3_BLOCKS = {"5b": A, "5c": A, "5d": A, "6a": B, "6b": C, "6c": C, "6d": C, "6e": C, "7a": D, "7b": E, "7c": E}


def _v1_block(block: str, branch: str, i: str, leaf: str) -> str:
    inside = "" if branch == "1" else f".{i if branch == '4' else int(i) - 1}"
    return f"inception{block}.branch{branch}{inside}.{LEAF[leaf]}"


def inception_v1_names(model: Any) -> dict[str, str]:
    """What torchvision calls the layers of an `inception_v1`: by path, with "/" for the root in front.

    >>> from dlkit.models.vision.inception import inception_v1
    >>> inception_v1_names(inception_v1())["mixed3a/branch2/conv2/norm"]
    '/inception3a.branch2.1.bn'
    """
    return named(
        model,
        {
            rf"{BODY}conv(\d)/(\w+)": lambda i, leaf: f"conv{i}.{LEAF[leaf]}",
            rf"{BODY}mixed(\d\w)/branch(\d)/conv(\d)/(\w+)": _v1_block,
            rf"{BODY}head": "fc",
            r"aux/(\d)/conv/(\w+)": lambda i, leaf: f"aux{int(i) + 1}.conv.{LEAF[leaf]}",
            r"aux/(\d)/linear": lambda i: f"aux{int(i) + 1}.fc1",
            r"aux/(\d)/head": lambda i: f"aux{int(i) + 1}.fc2",
        },
    )


def _v3_block(block: str, branch: str, i: str, leaf: str) -> str:
    return f"Mixed_{block}.{V3_BLOCKS[block][branch].format(i)}.{LEAF[leaf]}"


def _v3_split(block: str, branch: str, side: str, leaf: str) -> str:
    last = f"{2 if branch == '2' else 3}{'ab'[int(side) - 1]}"
    return f"Mixed_{block}.{V3_BLOCKS[block][branch].format(last)}.{LEAF[leaf]}"


def inception_v3_names(model: Any) -> dict[str, str]:
    """What torchvision calls the layers of an `inception_v3`: by path, with "/" for the root in front.

    >>> from dlkit.models.vision.inception import inception_v3
    >>> inception_v3_names(inception_v3())["mixed7b/branch3/split/branch2/conv"]
    '/Mixed_7b.branch3x3dbl_3b.conv'
    """
    return named(
        model,
        {
            rf"{BODY}conv(\d)/(\w+)": lambda i, leaf: f"{V3_STEM[i]}.{LEAF[leaf]}",
            rf"{BODY}mixed(\d\w)/branch(\d)/conv(\d)/(\w+)": _v3_block,
            rf"{BODY}mixed(\d\w)/branch(\d)/split/branch(\d)/(\w+)": _v3_split,
            rf"{BODY}head": "fc",
            r"aux/0/conv(\d)/(\w+)": lambda i, leaf: f"AuxLogits.conv{int(i) - 1}.{LEAF[leaf]}",
            "aux/0/head": "AuxLogits.fc",
        },
    )
