-- API keys. Whatever changes them counts `cluster.keys_version` up in the same statement, so that nodes see it.

-- name: create
-- $1 prefix, $2 hash, $3 tenant, $4 name, $5 scopes, $6 time to live in ms, $7 limit. No row: prefix taken, or limit.
WITH clock AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8 AS now_ms),
made AS (
    INSERT INTO api_keys (prefix, hash, tenant, name, scopes, created_ms, expires_ms)
    SELECT $1, $2, $3, $4, $5, now_ms, now_ms + $6 FROM clock
     WHERE (SELECT count(*) FROM api_keys WHERE revoked_ms IS NULL
               AND (expires_ms IS NULL OR expires_ms > now_ms)) < $7
    ON CONFLICT DO NOTHING
    RETURNING prefix, hash, tenant, name, scopes, created_ms, expires_ms, revoked_ms
),
told AS (UPDATE cluster SET keys_version = keys_version + 1 WHERE EXISTS (SELECT FROM made))
SELECT prefix, hash, tenant, name, scopes, created_ms, expires_ms, revoked_ms FROM made;

-- name: revoke
-- No row: there is no such key, or it was revoked before.
WITH gone AS (
    UPDATE api_keys SET revoked_ms = (extract(epoch FROM clock_timestamp()) * 1000)::int8
     WHERE prefix = $1 AND revoked_ms IS NULL
    RETURNING prefix, hash, tenant, name, scopes, created_ms, expires_ms, revoked_ms
),
told AS (UPDATE cluster SET keys_version = keys_version + 1 WHERE EXISTS (SELECT FROM gone))
SELECT prefix, hash, tenant, name, scopes, created_ms, expires_ms, revoked_ms FROM gone;

-- name: get
SELECT prefix, hash, tenant, name, scopes, created_ms, expires_ms, revoked_ms FROM api_keys WHERE prefix = $1;

-- name: known
-- $1 tenant or NULL, $2 limit.
SELECT prefix, hash, tenant, name, scopes, created_ms, expires_ms, revoked_ms
  FROM api_keys WHERE $1::text IS NULL OR tenant = $1
 ORDER BY created_ms DESC, prefix LIMIT $2;

-- name: changed
-- $1 the version that is known. No row: it is still that. One row without a prefix: no key is in use.
SELECT c.keys_version, EXISTS (SELECT FROM api_keys) AS exist,
       k.prefix, k.hash, k.tenant, k.name, k.scopes, k.created_ms, k.expires_ms, k.revoked_ms
  FROM cluster c
  LEFT JOIN api_keys k ON k.revoked_ms IS NULL
        AND (k.expires_ms IS NULL OR k.expires_ms > extract(epoch FROM clock_timestamp()) * 1000)
 WHERE c.keys_version <> $1;
