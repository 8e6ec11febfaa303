"""The audit: every estimator's gradient over all batches of a small decision process, beside the true one.

What comes in: a spec. What goes out: whether it is unbiased, scaled or biased, by how much, and its variance. Loads
torch only where an audit is made.
"""
