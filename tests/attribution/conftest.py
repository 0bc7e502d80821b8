"""The programs that recorded torch, captum and zennit are run by hand."""

collect_ignore = ["record_gradients.py", "record_relevance.py"]
