"""Operations on rows: environment matrix, activations, dense layers, LayerNorm, residual updates, entry of pairs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from dpa2.reference.activation import activation
from dpa2.reference.common import Weights
from dpa2.reference.env_mat import env_mat
from dpa2.reference.fitting import last_hidden
from dpa2.reference.linear import linear
from dpa2.reference.pair_attention import layer_norm
from dpa2.reference.residual_update import residual_update
from node_products import Nodes, activation_defines
from ops.backends import Arrays, Cpu, Cuda
from ops.declared import Bounds, Operation
from ops.graph import CENTRE, EDGES, OWN, TYPES, N, draw
from pair_formulas import Attention, PairLayer, attention_alone
from pair_kernels import PairKernels

Seeds = tuple[np.ndarray, ...] | None
#: numbers of src/math/activation.hpp
ACTIVATIONS = ("linear", "tanh", "relu", "relu6", "sigmoid", "softplus", "gelu", "silu", "silut")


def defines(kind: str) -> dict[str, str | int]:
    """What CUDA sources are compiled with for an activation function; silut has the threshold 3 (theory 4.2)."""
    threshold = 3.0
    s = 1.0 / (1.0 + math.exp(-threshold))
    constants = (threshold, s + threshold * s * (1.0 - s), threshold * s)
    return activation_defines(np.array([ACTIVATIONS.index(kind), *constants]))


def nodes_of(run: Cuda) -> Nodes:
    """The products over atoms on the same device."""
    return Nodes(run.device, run.precision)


class EnvMat(Operation):
    """Kernels of CUDA make its rows where they need them: tests/cuda/test_entry.py."""

    name = "env_mat"
    forward = Bounds(5e-14, 2e-5)
    gradient = Bounds(1e-12, 1e-4)
    cut = (1.0, 3.5, 0.1)

    def __init__(self) -> None:
        super().__init__("", draw(1, d=(EDGES, 3)))
        self.statistics = draw(2, mean=(3, 4), std=(3, 4))
        self.statistics["std"] = 0.5 + np.abs(self.statistics["std"])

    def reference(self, d: Any) -> tuple[Any, ...]:
        r = np.sqrt((d**2).sum(axis=1))
        return env_mat(d, r, TYPES[CENTRE], self.statistics["mean"], self.statistics["std"], *self.cut)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        R, sw, gradient = np.zeros((EDGES, 4)), np.zeros(EDGES), np.zeros((EDGES, 3))
        for i, own in enumerate(OWN):
            d, n = x["d"][own], own.stop - own.start
            blocks = [d.T, self.statistics["mean"][TYPES[i]], self.statistics["std"][TYPES[i]], self.cut]
            if seeds is None:
                found = run(self.name, [n], blocks)
                R[own], sw[own] = found[0].reshape(4, n).T, found[1]
            else:
                gradient[own] = run(self.name, [n], blocks, [seeds[0][own].T, seeds[1][own]])[0].reshape(3, n).T
        return [R, sw] if seeds is None else [gradient]


class Activation(Operation):
    name = "activation"
    forward = Bounds(2e-14, 5e-6)

    def __init__(self, kind: str) -> None:
        super().__init__(kind, draw(3, z=(N, 7)))
        self.kind, self.bias = kind, draw(4, bias=(3, 7))["bias"]

    def reference(self, z: Any) -> tuple[Any, ...]:
        return (activation(self.kind)(z + self.bias[TYPES]),)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        return run(self.name, [ACTIVATIONS.index(self.kind)], [x["z"] + self.bias[TYPES]], seeds)

    def cuda(self, run: Cuda, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        nodes, options = nodes_of(run), defines(self.kind)
        y, slope = nodes.product(x["z"], None, None, self.bias, TYPES, True, act=options)
        return [y] if seeds is None else [nodes.product(seeds[0], None, slope, act=options)[0]]


class Linear(Operation):
    name = "linear"

    def __init__(self) -> None:
        super().__init__("", draw(5, x=(7, 19)))
        self.weights = Weights({f"l.{name}": value for name, value in draw(6, matrix=(19, 5), bias=(5,)).items()})

    def reference(self, x: Any) -> tuple[Any, ...]:
        return (linear(x, self.weights, "l"),)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        return run(self.name, [7, 19, 5], [x["x"], self.weights["l.matrix"], self.weights["l.bias"]], seeds)

    def cuda(self, run: Cuda, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        nodes, w, b = nodes_of(run), self.weights["l.matrix"], self.weights["l.bias"][None, :]
        if seeds is None:
            return [nodes.product(x["x"], w, None, b, np.zeros(7, np.int32))[0]]
        return [nodes.product(seeds[0], w.T)[0]]


class LayerNorm(Operation):
    """The kernels take rows without a mean: the matrix in front of them makes such rows."""

    name = "layer_norm"
    forward = Bounds(5e-14, 1e-5)
    shape = (7, 37)

    def __init__(self) -> None:
        super().__init__("", draw(7, z=self.shape))
        self.gain = draw(8, gain=self.shape[1:], shift=self.shape[1:])

    @staticmethod
    def centred(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = rows - rows.mean(axis=1, keepdims=True)
        return found

    def reference(self, z: Any) -> tuple[Any, ...]:
        return (layer_norm(z, self.gain["gain"], self.gain["shift"], 1e-3),)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        found = run(
            self.name, self.shape, [self.centred(x["z"]), self.gain["gain"], self.gain["shift"], [1e-3]], seeds
        )[0]
        found = found.reshape(self.shape)
        return [found if seeds is None else self.centred(found)]

    def cuda(self, run: Cuda, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        """The pair channel of centres with one edge each, whose attention gives what comes in."""
        rows, width = self.shape
        identity = Attention(np.zeros((1, width, width)), np.eye(width)[None], np.zeros(width), None, False, False, 0)
        update = dataclasses.replace(attention_alone(width), **self.gain, eps=1e-3)
        inputs = [self.centred(x["z"]), np.tile([1.0, 0.0, 0.0], (rows, 1)), np.ones(rows)]
        layer = PairLayer(identity, update)
        kernels = PairKernels(run.device, run.defines["real"], np.arange(rows + 1), layer, inputs)
        if seeds is None:
            return [run.down(kernels.forward()["out"])]
        found = kernels.backward({"out": seeds[0], "h2": np.zeros((rows, 3))})
        return [self.centred(run.down(found["g2"]))]


class ResidualUpdate(Operation):
    """u + sum r U, whose U are activated where the model does so, with a bias in front; on CUDA not a kernel."""

    name = "residual_update"
    shape = (6, 7)
    active = (True, False, True)

    def __init__(self) -> None:
        super().__init__("", draw(9, u=self.shape, t0=self.shape, t1=self.shape, t2=self.shape))
        self.r = Weights(draw(10, **{f"r.{k}": self.shape[1:] for k in range(3)}))
        self.bias = [*draw(11, b0=self.shape[1:], b1=self.shape[1:]).values(), None]

    def before(self, t: Any, k: int) -> Any:
        return t if self.bias[k] is None else t + self.bias[k]

    def reference(self, u: Any, **terms: Any) -> tuple[Any, ...]:
        phi = activation("silu")
        z = [self.before(t, k) for k, t in enumerate(terms.values())]
        updates = [phi(t) if active else t for t, active in zip(z, self.active, strict=True)]
        return (residual_update(u, updates, "res_residual", self.r, "r"),)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        number = ACTIVATIONS.index("silu")
        z = [self.before(x[f"t{k}"], k) for k in range(3)]
        U = [run("activation", [number], [t])[0] if active else t for t, active in zip(z, self.active, strict=True)]
        blocks = [x["u"], *U, *(self.r[f"r.{k}"] for k in range(3)), [1.0]]
        found = run(self.name, [*self.shape, 3], blocks, seeds)
        if seeds is None:
            return found
        du, *dU = found
        return [du, *(run("activation", [number], [z[k]], [dU[k]])[0] if self.active[k] else dU[k] for k in range(3))]


class G2Embed(Operation):
    """On CUDA together with the environment matrix: tests/cuda/test_entry.py."""

    name = "g2_embed"
    n2 = 5

    def __init__(self) -> None:
        super().__init__("", draw(12, R=(EDGES, 4)))
        self.weights = Weights({f"l.{name}": value for name, value in draw(13, matrix=(1, 5), bias=(5,)).items()})

    def reference(self, R: Any) -> tuple[Any, ...]:
        return activation("silu")(linear(R[:, :1], self.weights, "l")), R[:, 1:]

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        ints = [ACTIVATIONS.index("silu"), EDGES, self.n2]
        blocks = [x["R"][:, 0], self.weights["l.matrix"], self.weights["l.bias"]]
        if seeds is None:
            return [run(self.name, ints, blocks)[0], x["R"][:, 1:]]
        return [np.column_stack([run(self.name, ints, blocks, seeds[:1])[0], seeds[1]])]


class Fitting(Operation):
    """One pass gives outputs and gradients; tests/cuda/test_nodes.py has it on CUDA."""

    name = "fitting"
    widths = (12, 12, 7)

    def __init__(self, out: int) -> None:
        super().__init__(f"to {out}", draw(14, x=(N, 6)))
        self.out = out
        self.option = {"neuron": list(self.widths), "activation_function": "tanh", "resnet_dt": True}
        weights, before, prefix = {}, 6, "fitting_net.filter_layers.networks.0.layers"
        for k, width in enumerate((*self.widths, out)):
            drawn = draw(15 + k, matrix=(before, width), bias=(width,), idt=(width,))
            drawn["matrix"] *= 0.5
            if k == len(self.widths) or width not in (before, 2 * before):
                del drawn["idt"]
            weights |= {f"{prefix}.{k}.{name}": value for name, value in drawn.items()}
            before = width
        self.weights, self.prefix = Weights(weights), prefix

    def reference(self, x: Any) -> tuple[Any, ...]:
        return (linear(last_hidden(x, self.option, self.weights), self.weights, f"{self.prefix}.{len(self.widths)}"),)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        blocks: list[Any] = [x["x"]]
        for k in range(len(self.widths)):
            blocks += [self.weights.get(f"{self.prefix}.{k}.{part}", []) for part in ("matrix", "bias", "idt")]
        last = f"{self.prefix}.{len(self.widths)}"
        blocks += [self.weights[f"{last}.matrix"], self.weights[f"{last}.bias"]]
        ints = [ACTIVATIONS.index("tanh"), N, 6, self.out, len(self.widths), *self.widths]
        return run(self.name, ints, blocks, seeds)


OPERATIONS: list[Operation] = [
    EnvMat(),
    *(Activation(kind) for kind in ACTIVATIONS),
    Linear(),
    LayerNorm(),
    ResidualUpdate(),
    G2Embed(),
    *(Fitting(out) for out in (1, 5, 19)),
]
