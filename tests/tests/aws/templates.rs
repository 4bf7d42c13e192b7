//! What a machine that does not exist yet would be: its template against the truth.
