"""A run that test_resume.py kills: FOLDER [resume] [EPOCHS]. Prints a hash of the last state."""

import hashlib
import os
import pathlib
import sys

import jax
import numpy as np
from training import images, small_net

from jaxtrain import losses, optim, train


def main():
    # The bytes are equal for equal cores alone.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    folder, resume, epochs = pathlib.Path(sys.argv[1]), sys.argv[2] == "resume", int(sys.argv[3])
    step = train.make_step(small_net(), losses.softmax_cross_entropy, optim.adam(1e-2))
    run = train.fit(
        step,
        images(22),
        test=images(10),
        epochs=epochs,
        batch_size=8,
        seed=5,
        steps_per_call=1,
        log_every=2,
        eval_every=7,
        save_every=3,
        directory=folder,
        resume=resume,
        progress=False,
    )
    ts = run.ts._replace(key=jax.random.key_data(run.ts.key))
    data = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(ts))
    print(hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main()
