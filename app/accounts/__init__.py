"""People and programs: invitations, sign-in, sessions, API tokens and the audit trail."""
