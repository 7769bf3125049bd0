"""A pipeline of another shape than the flights: three classes, batches with names of their own, one CSV source, no
references, a look-back of one batch, a rolling split. 6 batches of 60 rows."""
