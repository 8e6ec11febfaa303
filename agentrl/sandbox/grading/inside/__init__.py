"""What runs inside a sandbox on a grader's behalf. Its text is sent there; nothing here decides a grade."""
