"""What all pages share: who is visiting, templates, security headers, error pages, static files."""
