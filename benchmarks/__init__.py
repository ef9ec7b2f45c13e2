"""Speed and memory of the row-batched engine, against one example at a time on a copy."""
