"""What one user keeps on one machine: keys, invites, known hosts, settings, and the rooms that are open here."""
