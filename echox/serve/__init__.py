"""The server: any loaded assistant behind the protocol that everyone's client already speaks; it never imports torch."""
