-- The audit trail in the bucket of a stage (AuditTrail=bucket), for queries in Athena. Write the stage and the account's
-- number in, and run one statement after the other:
--   sed 's/STAGE/dev/; s/ACCOUNT/123456789012/' deploy/aws/athena.sql
-- A line is kept whole, so that its digest can be taken; the view names its members. What a commit leaves empty is null.

CREATE EXTERNAL TABLE tillway_audit_lines (line string)
PARTITIONED BY (day string)
ROW FORMAT DELIMITED FIELDS TERMINATED BY '\001'
STORED AS TEXTFILE
LOCATION 's3://tillway-STAGE-audit-ACCOUNT/audit/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.day.type' = 'date',
  'projection.day.format' = 'yyyy/MM/dd',
  'projection.day.range' = '2026/01/01,NOW',
  'storage.location.template' = 's3://tillway-STAGE-audit-ACCOUNT/audit/${day}/'
);

-- A batch lies under the day on which it was linked. `scope` is the merchant and the mode (t or l), or the installation.
CREATE OR REPLACE VIEW tillway_audit AS
SELECT
  day,
  regexp_extract("$path", '/([^/]+)/[0-9]{12}-[0-9]{12}\.ndjson$', 1) AS scope,
  json_extract_scalar(line, '$.id') AS id,
  CAST(json_extract_scalar(line, '$.created') AS bigint) AS created,
  CAST(json_extract_scalar(line, '$.at_ms') AS bigint) AS at_ms,
  json_extract_scalar(line, '$.actor') AS actor,
  json_extract_scalar(line, '$.operation') AS operation,
  json_extract(line, '$.changes') AS changes,
  json_extract_scalar(line, '$.hint') AS hint,
  json_extract_scalar(line, '$.ip') AS ip,
  json_extract_scalar(line, '$.request') AS request,
  json_extract(line, '$.detail') AS detail,
  json_extract(line, '$.events') AS events,
  json_extract_scalar(line, '$.idempotency_key') AS idempotency_key,
  line
FROM tillway_audit_lines;

-- The ledger beside it. An object begins with a head that counts its lines; the note of whole days lies elsewhere.
-- `created` may be the day before the object's.

CREATE EXTERNAL TABLE tillway_ledger_lines (line string)
PARTITIONED BY (day string)
ROW FORMAT DELIMITED FIELDS TERMINATED BY '\001'
STORED AS TEXTFILE
LOCATION 's3://tillway-STAGE-audit-ACCOUNT/ledger/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.day.type' = 'date',
  'projection.day.format' = 'yyyy/MM/dd',
  'projection.day.range' = '2026/01/01,NOW',
  'storage.location.template' = 's3://tillway-STAGE-audit-ACCOUNT/ledger/${day}/'
);

-- Entries: amounts are minor units of `currency`, and `postings` are the movements of the ledger's accounts.
CREATE OR REPLACE VIEW tillway_ledger AS
SELECT
  day,
  json_extract_scalar(line, '$.id') AS id,
  CAST(json_extract_scalar(line, '$.created') AS bigint) AS created,
  json_extract_scalar(line, '$.account') AS account,
  json_extract_scalar(line, '$.mode') AS mode,
  json_extract_scalar(line, '$.currency') AS currency,
  json_extract(line, '$.postings') AS postings,
  json_extract_scalar(line, '$.type') AS type,
  CAST(json_extract_scalar(line, '$.amount_minor') AS bigint) AS amount_minor,
  CAST(json_extract_scalar(line, '$.fee_minor') AS bigint) AS fee_minor,
  CAST(json_extract_scalar(line, '$.available_on') AS bigint) AS available_on,
  json_extract_scalar(line, '$.source') AS source,
  json_extract_scalar(line, '$.reporting_category') AS reporting_category
FROM tillway_ledger_lines
WHERE json_extract_scalar(line, '$.object') = 'entry';

-- Changes of the charges, refunds, payouts and disputes that entries name as their source; the last one of a field
-- holds. The connector and the state of a payment that moved nothing stand here.
CREATE OR REPLACE VIEW tillway_ledger_sources AS
SELECT
  day,
  json_extract_scalar(line, '$.id') AS id,
  CAST(json_extract_scalar(line, '$.version') AS bigint) AS version,
  json_extract_scalar(line, '$.told_by') AS told_by,
  json_extract(line, '$.fields') AS fields,
  json_extract_scalar(line, '$.gone') AS gone
FROM tillway_ledger_lines
WHERE json_extract_scalar(line, '$.object') = 'source';
