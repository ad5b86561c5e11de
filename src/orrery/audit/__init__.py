"""What an auditor asks for: the chain's head noted outside, who did what and what served when, and a copy to keep."""
