"""What is worth trying in the study? Its tasks, trained in one process without verl, in a minute a run.

    python -m cero.research.laboratory run letters-fresh even cero oracle --seeds 0,1,2
    python -m cero.research.laboratory table runs/laboratory.jsonl

`contenders` says what can be compared, `training` runs one of them, `questions` and `policy` are the task and
the model, and `results` reads what the runs left behind. `replay` shows that all this is what verl does: it
goes through a run of verl's again and comes to the same rollouts and the same weights.

Model, questions, rewards, allocators, advantages and loss are the study's (one update a step, averaged over
tokens, AdamW); there is no engine and no Ray. In return a run knows more than a real one: the probability
that the model is right, by teacher forcing. Accuracy is measured by it, and an oracle can allocate by it.
"""
