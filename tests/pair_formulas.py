"""Attention among the edges of one centre, folded, in plain NumPy (theory 8.5-8.7, 12.8-12.10, S1-S3).

Every operation is in the type of the arrays: float32 shows what the precision itself costs.
The forward takes complex numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SHIFT = 20


@dataclass
class Attention:
    """Options and folded weights: A, B (heads, n2, n2), bias (n2), h2 (heads); B or h2 None without that update."""

    A: Any
    B: Any
    bias: Any
    h2: Any
    gate: bool
    smooth: bool
    nsel: int

    def cast(self, kind: Any) -> Attention:
        A, B, bias, h2 = (None if x is None else x.astype(kind) for x in (self.A, self.B, self.bias, self.h2))
        return Attention(A, B, bias, h2, self.gate, self.smooth, self.nsel)

    def map(self, g2: Any, h2: Any, w: Any) -> tuple[Any, ...]:
        """Scores S and probabilities P (heads, query, key), HH and c2 (query, key)."""
        n = len(g2)
        c2, product = w[:, None] * w, h2 @ h2.T
        S = (g2 @ self.A @ g2.T).transpose(0, 2, 1)
        b = S * (c2 * product if self.gate else c2)
        top = b.real.max(axis=-1, keepdims=True)
        pad = 0
        if self.smooth:
            b = b + SHIFT * (c2 - 1)
            pad = max(self.nsel - n, 0)
            top = np.maximum(b.real.max(axis=-1, keepdims=True), -SHIFT if pad else -np.inf).astype(b.real.dtype)
        e = np.exp(b - top)
        total = e.sum(axis=-1, keepdims=True)
        if pad:
            total = total + pad * np.exp(-SHIFT - top)
        return S, e / total, product, c2

    def forward(self, g2: Any, h2: Any, w: Any) -> list[Any]:
        """What there is of z and dh."""
        if len(g2) == 0:
            return [x for x, there in ((g2, self.B), (h2, self.h2)) if there is not None]
        _, P, product, c2 = self.map(g2, h2, w)
        R = P * (product * c2)
        found = []
        if self.B is not None:
            found.append((R @ (g2 @ self.B)).sum(axis=0) + self.bias)
        if self.h2 is not None:
            found.append((self.h2[:, None, None] * (R @ h2)).sum(axis=0))
        return found

    def backward(self, g2: Any, h2: Any, w: Any, seeds: list[Any]) -> tuple[Any, Any, Any]:
        """Gradients of g2, h2 and w."""
        dg2, dh2, dw = np.zeros_like(g2), np.zeros_like(h2), np.zeros_like(w)
        if len(g2) == 0:
            return dg2, dh2, dw
        S, P, product, c2 = self.map(g2, h2, w)
        c1 = product * c2
        R = P * c1
        given = np.zeros_like(P)
        if self.B is not None:
            V = seeds[0] @ self.B.transpose(0, 2, 1)
            given += V @ g2.T
            dg2 += (R.transpose(0, 2, 1) @ V).sum(axis=0)
        if self.h2 is not None:
            weighted = self.h2[:, None, None] * seeds[-1]
            given += weighted @ h2.T
            dh2 += (R.transpose(0, 2, 1) @ weighted).sum(axis=0)
        db = P * (given * c1 - (R * given).sum(axis=-1, keepdims=True))
        shift = SHIFT if self.smooth else 0
        if self.gate:
            dc1, dc2, dS = given * P + db * S, db * shift, db * c1
        else:
            dc1, dc2, dS = given * P, db * (S + shift), db * c2
        dc1, dc2 = dc1.sum(axis=0), dc2.sum(axis=0)
        dproduct, dweights = dc1 * c2, dc1 * product + dc2
        dh2 += (dproduct + dproduct.T) @ h2
        dw += (dweights + dweights.T) @ w
        dg2 += (dS @ (g2 @ self.A)).sum(axis=0)
        dg2 += (dS.transpose(0, 2, 1) @ g2 @ self.A.transpose(0, 2, 1)).sum(axis=0)
        return dg2, dh2, dw


def tiles(heads: Any) -> Any:
    """Matrices (heads, n2, n2) as the kernels read them: in tiles of 32, zero beyond n2."""
    count, n2, _ = heads.shape
    chunks = -(-n2 // 32)
    padded = np.zeros((count, 32 * chunks, 32 * chunks), heads.dtype)
    padded[:, :n2, :n2] = heads
    return np.ascontiguousarray(padded.reshape(count, chunks, 32, chunks, 32).transpose(0, 1, 3, 2, 4))


@dataclass
class Update:
    """Weights of linear2, of the residual (r of linear2, g1g1, attention; a), of LayerNorm and of the update of h2.

    The activation is tanh.
    """

    w: Any
    b: Any
    r: Any  # (3, n2)
    gain: Any
    shift: Any
    a: float
    h2_a: float
    h2_r: float
    eps: float

    def cast(self, kind: Any) -> Update:
        arrays = (x.astype(kind) for x in (self.w, self.b, self.r, self.gain, self.shift))
        return Update(*arrays, self.a, self.h2_a, self.h2_r, self.eps)

    def forward(self, g2: Any, h2: Any, U: Any, z: Any, dh: Any) -> tuple[Any, Any]:
        """g2 and h2 of the next layer; U, z, dh None where there is no such term. Rows of z have no mean."""
        out = self.a * g2 + self.r[0] * np.tanh(g2 @ self.w + self.b)
        if U is not None:
            out = out + self.r[1] * U
        if z is not None:
            normal = z / np.sqrt((z**2).mean(axis=1, keepdims=True) + self.eps)
            out = out + self.r[2] * (normal * self.gain + self.shift)
        return out, h2 if dh is None else self.h2_a * h2 + self.h2_r * dh

    def backward(self, g2: Any, z: Any, dout: Any, dh2: Any) -> dict[str, Any]:
        """Gradients of all inputs, without those that pass through z to g2."""
        dlinear = dout * self.r[0] * (1 - np.tanh(g2 @ self.w + self.b) ** 2)
        found = {
            "g2": self.a * dout + dlinear @ self.w.T,
            "h2": self.h2_a * dh2,
            "U": self.r[1] * dout,
            "dh": self.h2_r * dh2,
        }
        if z is not None:
            inv = 1 / np.sqrt((z**2).mean(axis=1, keepdims=True) + self.eps)
            given = dout * self.r[2] * self.gain
            found["z"] = (given - z * inv * (given * z * inv).mean(axis=1, keepdims=True)) * inv
        return found


def attention_alone(n2: int, large: float = 2.0**30) -> Update:
    """An update that leaves what the attention gives: eps hides the size of a row, and the gain makes up for it."""
    nothing = np.zeros(n2)
    residual = np.repeat([[0.0], [0.0], [1.0]], n2, axis=1)
    return Update(np.zeros((n2, n2)), nothing, residual, np.full(n2, large), nothing, 0.0, 0.0, 1.0, large**2)


@dataclass
class PairLayer:
    """The new g2 and h2 of the edges of one centre; ``attention`` None where the layer has none."""

    attention: Attention | None
    update: Update

    def cast(self, kind: Any) -> PairLayer:
        return PairLayer(None if self.attention is None else self.attention.cast(kind), self.update.cast(kind))

    def parts(self, g2: Any, h2: Any, w: Any) -> tuple[Any, Any]:
        """z and dh, None where there is no such part."""
        of = self.attention
        found = [] if of is None else of.forward(g2, h2, w)
        return (
            found[0] if of is not None and of.B is not None else None,
            found[-1] if of is not None and of.h2 is not None else None,
        )

    def forward(self, g2: Any, h2: Any, w: Any, U: Any) -> dict[str, Any]:
        z, dh = self.parts(g2, h2, w)
        out, moved = self.update.forward(g2, h2, U, z, dh)
        return {"out": out, "h2": moved}

    def backward(self, g2: Any, h2: Any, w: Any, seeds: dict[str, Any]) -> dict[str, Any]:
        """Gradients of all inputs, given those of the outputs."""
        z, dh = self.parts(g2, h2, w)
        found = self.update.backward(g2, z, seeds["out"], seeds["h2"])
        if dh is None:
            found["h2"] = seeds["h2"]
        found["w"] = np.zeros_like(w)
        if self.attention is not None:
            given = [found[name] for name, part in (("z", z), ("dh", dh)) if part is not None]
            for name, part in zip(("g2", "h2", "w"), self.attention.backward(g2, h2, w, given), strict=True):
                found[name] = found[name] + part
        return {name: found[name] for name in ("g2", "h2", "w", "U")}
