"""One process of a job that test_processes.py starts: FOLDER PORT PROCESS_ID JOB [ARGUMENTS]."""

import hashlib
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from training import images, small_net

from experiments import train as main_job
from jaxtrain import data, losses, models, optim, train

LONG = 100_000


def setup():
    """The step and the data of all jobs; also of the one process that they are compared with."""
    step = train.make_step(small_net(), losses.softmax_cross_entropy, optim.momentum(0.1))
    return step, images(22, dtype=np.float64)


class Read:
    """The examples one by one, and which of them were read."""

    def __init__(self, dataset):
        self.dataset, self.numbers = dataset, []

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        self.numbers.append(i)
        return self.dataset.image[i], self.dataset.label[i]


def fit(how, folder, epochs, read=None):
    step, dataset = setup()
    if read is not None:
        dataset = data.Source(read, classes=3, threads=1)
    train.fit(
        step,
        dataset,
        epochs=epochs,
        batch_size=8,
        how=how,
        log_every=1,
        save_every=8,
        directory=folder,
        resume=True,
        progress=False,
    )


def restored(folder):
    """The newest checkpoint: its step, its leaves by path, and the hash of their bytes."""
    with train.Checkpoints(folder / "checkpoints") as checkpoints:
        step, leaves, _ = checkpoints.restore_leaves()
    leaves = {path: _bits(leaf) for path, leaf in sorted(leaves.items())}
    return step, leaves, hashlib.sha256(b"".join(x.tobytes() for x in leaves.values())).hexdigest()


def _bits(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def main():
    folder, port, process_id, job, *arguments = sys.argv[1:]
    folder, coordinator = pathlib.Path(folder), f"127.0.0.1:{port}"
    if job in ("main", "train"):
        models.resnet = lambda *_, **options: small_net(classes=10)
        where = ["--coordinator", coordinator, "--process-id", process_id, "--processes", "2"]
        size = ["--epochs", "1", "--batch-size", "240", "--no-progress", "--runs", str(folder)]
        main_job.main([*where, *size, *arguments])
    else:
        train.use_processes(coordinator, process_id=int(process_id), processes=2)
    jax.config.update("jax_enable_x64", True)
    if job == "train":
        fit("shard_map", folder / "shard_map", 2)
        read = Read(setup()[1])
        fit("jit", folder / "jit", 2, read)
        print("read", *read.numbers)
        placed = train.parallelize(setup()[0], how="pmap").place(np.zeros(1))
        print("state of pmap on the devices of its process:", placed.is_fully_addressable)
        fit("pmap", folder / "pmap", LONG)
    if job == "resume":
        step, _, digest = restored(folder / "pmap")
        print("restored", step, digest, flush=True)
        fit("jit", folder / "pmap", LONG)


if __name__ == "__main__":
    main()
