-- Secrets that a tenant's webhooks are signed with: one, or two while a rotation is under way. They are kept as they
-- are, for a signature can't be made from a hash: whoever reads this table can sign. `secret_id` is the cluster's
-- settings_version at its making, so it rises and is never used twice.
CREATE TABLE signing_secrets (
    secret_id int8  PRIMARY KEY,
    made_ms   int8  NOT NULL,
    tenant    text  NOT NULL,
    secret    bytea NOT NULL CHECK (octet_length(secret) BETWEEN 24 AND 64)
);

CREATE INDEX signing_secrets_tenant ON signing_secrets (tenant, secret_id);

-- The trace that a task belongs to: `traceparent` (W3C Trace Context) of the request that brought it. NULL costs a row
-- nothing. docs/decisions/0005 says why it is a column.
ALTER TABLE tasks ADD COLUMN trace text;
ALTER TABLE finished ADD COLUMN trace text;
