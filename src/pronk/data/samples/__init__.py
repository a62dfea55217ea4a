"""Sample data embedded in pronk: invented financial headlines for demos and tests."""
