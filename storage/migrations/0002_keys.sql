-- API keys. `hash` is the SHA-256 of the secret, the secret itself is kept nowhere. A revoked key stays as a record.

CREATE TABLE api_keys (
    created_ms int8   NOT NULL,
    expires_ms int8,
    revoked_ms int8,
    prefix     text   PRIMARY KEY CHECK (length(prefix) = 12),
    tenant     text   NOT NULL,
    name       text   NOT NULL,
    hash       bytea  NOT NULL CHECK (octet_length(hash) = 32),
    scopes     text[] NOT NULL
);

-- Counts what was made and revoked: nodes look at this alone, once a second.
ALTER TABLE cluster ADD COLUMN keys_version int8 NOT NULL DEFAULT 0;
