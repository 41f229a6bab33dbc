"""Who may log in: stores behind one contract."""
