"""Training: runs from inputs of deepmd-kit, and the gradient of a loss to the parameters of a model.

>>> from dpa2 import train
>>> run = train.from_file("input.json").trainer()                                                  # doctest: +SKIP
>>> run.step()["value"]                            # or run.run(), which does all steps and saves   # doctest: +SKIP

>>> batch = {"coord": coords, "atype": types, "box": box, "energy": energies, "force": forces}     # doctest: +SKIP
>>> loss = {"start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1}      # doctest: +SKIP
>>> found = train.gradient("model.ckpt.pt", batch, loss, lr=1e-3)                                  # doctest: +SKIP
>>> found["value"], found["parts"]["rmse_f"]                                                       # doctest: +SKIP
>>> found["gradient"]["atomic_model.fitting_net.filter_layers.networks.0.layers.0.matrix"]         # doctest: +SKIP
"""

from __future__ import annotations

from .gradient import GradientEngine, LossGradient, gradient
from .models import Task
from .prepare import Preparation, from_file, from_input
from .trainer import Trainer

__all__ = ["GradientEngine", "LossGradient", "Preparation", "Task", "Trainer", "from_file", "from_input", "gradient"]
