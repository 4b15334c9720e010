"""Privacy of the people in the data: answers to encrypted queries, and training that says little of any single row."""
