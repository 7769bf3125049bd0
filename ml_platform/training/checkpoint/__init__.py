"""Checkpoints of a running job: a job that is killed and started again goes on, and ends with the same bytes.

    interval.py      how often one is taken
    state.py         what is in it: a copy of what training changes, and how it is put back
    parts.py         how it is written and read, by torch.distributed.checkpoint
    folder.py        where it lies, when it counts, whether it is whole; knows nothing of torch
    resumed.py       what is said of a job that went on with another number of processes
    checkpoints.py   all of it together, the same calls on every rank

A checkpoint is taken between two steps and holds all that the next step depends on: weights, the state of the optimizer
and of float16's scaler, the random states of every rank, and where in which epoch training is. The order of the rows is
not in it, because it follows from the seed: a resumed epoch draws its batches again and passes over those that were
seen.
"""
