-- Signing secrets. Whoever changes them counts settings_version up first: that locks the cluster's row, so changes come
-- one after the other, and every node reads them anew.

-- name: change
UPDATE cluster SET settings_version = settings_version + 1 RETURNING settings_version;

-- name: insert
-- $1 secret_id, $2 tenant, $3 secret.
INSERT INTO signing_secrets (secret_id, made_ms, tenant, secret)
VALUES ($1, extract(epoch FROM clock_timestamp()) * 1000, $2, $3)
RETURNING secret_id, made_ms, tenant, secret;

-- name: retire
-- $1 tenant, $2 how many of the newest stay.
DELETE FROM signing_secrets
 WHERE tenant = $1
   AND secret_id IN (SELECT secret_id FROM signing_secrets WHERE tenant = $1 ORDER BY secret_id DESC OFFSET $2);

-- name: revoke
-- $1 tenant, $2 secret_id.
DELETE FROM signing_secrets WHERE tenant = $1 AND secret_id = $2 RETURNING secret_id;

-- name: of
-- $1 tenant, or NULL for all.
SELECT secret_id, made_ms, tenant, secret FROM signing_secrets
 WHERE $1::text IS NULL OR tenant = $1
 ORDER BY secret_id DESC;
