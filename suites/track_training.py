"""A training that is tracked: a line is fitted to noisy points, with a checkpoint now and then.

python suites/track_training.py && evalrun training show fitted-line
"""

import json
import random
from pathlib import Path

import evalrun

rng = random.Random(7)
points = [(x / 100, 3 * x / 100 - 1 + rng.gauss(0, 0.2)) for x in range(100)]
slope, offset, rate = 0.0, 0.0, 0.1

with evalrun.track("fitted-line", config={"learning_rate": rate, "seed": 7}, planned_steps=400) as run:
    for step in range(1, 401):
        batch = rng.sample(points, 16)
        errors = [slope * x + offset - y for x, y in batch]
        by_slope = 2 * sum(error * x for error, (x, _) in zip(errors, batch, strict=True)) / len(batch)
        by_offset = 2 * sum(errors) / len(batch)
        slope, offset = slope - rate * by_slope, offset - rate * by_offset
        if step % 5 == 0:
            loss = sum(error * error for error in errors) / len(errors)
            run.log({"loss": loss, "grad_norm": (by_slope**2 + by_offset**2) ** 0.5}, step=step)
        if step % 100 == 0:
            everything = [(slope * x + offset - y) ** 2 for x, y in points]
            run.log({"eval_loss": sum(everything) / len(everything)}, step=step)
            place = Path("out") / f"checkpoint-{step}.json"
            place.parent.mkdir(exist_ok=True)
            place.write_text(json.dumps({"slope": slope, "offset": offset}))
            run.checkpoint(place, step=step)
