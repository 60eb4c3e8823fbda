"""The monitor beside what it says it measures, and the edge of stability on handwritten digits."""

import numpy as np

from dlkit import curvature, data, losses, nn, optim, train

DIGITS = data.digits()
SET = data.Arrays(x=DIGITS["x"][:192].reshape(192, 64), y=DIGITS["y"][:192])


def test_edge_of_stability():
    """Full-batch gradient descent: lambda_max rises to 2 / lr and stays near it (Cohen et al. 2021)."""
    task = train.Task(nn.Chain(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)), losses.mse_of_classes)
    lr = 0.2
    monitor = curvature.CurvatureMonitor(interval=50, budget=None, steps=20)
    result = train.fit(task, optim.sgd(lr), SET, epochs=1500, batch_size=192, callbacks=[monitor], log_every=500)
    top = np.array([row["curvature/lambda_max"] for row in monitor.rows])
    print(top * lr / 2, result.last)
