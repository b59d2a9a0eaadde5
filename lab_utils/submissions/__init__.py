"""What students hand in: packed on their side; read, verified and marked on the instructor's."""
