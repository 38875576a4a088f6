"""One module a task: what the loop, which is the same for all, has to know of it.

  LOGGED     names of the sums that a step gives, `..._loss` and `..._accuracy`
  SHOWN      names on the progress line, of those that are there
  CHOSEN_BY  the metric of the validation split by which a step is chosen, larger is better; '' for
             the last step
  losses(outputs, batch), accuracies(outputs, batch)
             [sum, weight] over the batch by name; the means of all losses added up are minimised
  items(outputs, batch)
             arrays [B, ...] that an evaluation gathers from all batches and processes
  evaluate(run, batches)
             the metrics of a split; `run(batches)` gives its sums and items (evaluator.py)
  result(run, batches, path)
             those of the end: more of them, and the predictions written to `path`
  table(split, metrics)
             these as the text that a run ends with

Retrieval, which scores what no batch holds, has `recalls` and `report` instead of `items`,
`evaluate` and `result`; `pixelbert_jax/tasks/ranker.py` takes the place of `evaluator.py`.

A task's batches are described at the top of the module and made by a class in `input`; its model
is in `models/heads.py`, whose `INPUTS` are the names of what it takes of a batch. `experiment.py`
makes both.
"""
