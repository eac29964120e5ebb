#!/usr/bin/env node
// Runs the HTTP cache conformance suite (http-cache-tests, pinned in package.json)
// against Littoral or a peer and judges the results by the suite's own rule.
import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { readExpectations, compareWithExpectations } from './expectations.mjs'
import { judge, suites, total, kinds } from './judge.mjs'
import { startOrigin, startServer, runClient, runOne, stopAll } from './processes.mjs'
import { compared, describe, readReadme, writeReadme } from './readme.mjs'
import { printSuites, printTotals, printNotPassed, printUnsteady } from './report.mjs'

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname)
const usage = `Usage: run.mjs [options] [-- extra arguments for littoral]

  --server NAME[,NAME]  littoral (default), nginx, varnish, haproxy: started here, one after the other
  --littoral PATH       the binary (default: $LITTORAL_BIN, else target/release/littoral)
  --command COMMAND     any other cache; {port}, {admin} and {origin} (a port) are replaced in it
  --base URL            a cache that runs already; its origin must be 127.0.0.1:PORT of --origin-port
  --origin-port PORT    where the suite's origin listens (default: a free port)
  --runs N              repeat; a test passes when it passed in every run (default 1)
  --min-required N      fail below N required tests passed
  --min-optimal N       fail below N optimal tests passed (those with a reason do not count as passed)
  --expectations FILE   accepted failures (default: expectations.toml, for littoral alone)
  --readme              run all four servers and write their table into cache-tests/README.md
  --json FILE           write what the suite returned, per server and run
  --id TEST             run one test alone and print its requests and responses
  --verbose             show what the servers print`

// Debian has servers where only root looks for commands.
process.env.PATH += ':/usr/sbin'

// What --readme would not be the same table with.
const notWithReadme = ['server', 'command', 'base', 'id', 'expectations']

const { values: options, positionals } = parse()
if (options.help) {
  console.log(usage)
  process.exit(0)
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => stopAll().finally(() => process.exit(130)))
}

let failures = []
try {
  failures = await main()
} catch (error) {
  failures = [error.message]
} finally {
  await stopAll()
}
for (const failure of failures) console.error(`conformance: ${failure}`)
process.exit(failures.length === 0 ? 0 : 1)

async function main () {
  const readme = options.readme ? readReadme(path.join(here, '../README.md'), describe(littoralPath(), count('runs', 1))) : undefined
  const results = []
  for (const name of servers()) {
    const runs = []
    for (let run = 1; run <= count('runs', 1); run++) {
      const found = await oneRun(name, run)
      if (options.id !== undefined) continue
      runs.push(found)
    }
    if (options.id !== undefined) continue
    const result = { name, runs, judged: judge(runs) }
    results.push(runs.length === 1 ? await withoutLuck(result) : result)
  }
  if (results.length === 0) return []

  if (options.json !== undefined) {
    fs.writeFileSync(options.json, JSON.stringify(Object.fromEntries(results.map(r => [r.name, r.runs])), null, 1) + '\n')
  }
  printSuites(suites, results)
  for (const result of results) printTotals(result)
  const problems = []
  for (const result of results) {
    printUnsteady(result)
    const expectations = expectationsFor(result.name)
    if (expectations !== undefined || results.length === 1) printNotPassed(result, expectations)
    problems.push(...compareWithExpectations(result, expectations), ...belowMinima(result))
  }
  if (readme !== undefined && problems.length === 0) writeReadme(readme, suites, results)
  return problems
}

/**
 * A run that surprises is repeated, and the repetition counts alone: the suite's origin may close a connection just as it is
 * used, and a purge may hit what shares its bucket. What is really broken, or mended, surprises twice.
 */
async function withoutLuck (result) {
  const surprises = [...compareWithExpectations(result, expectationsFor(result.name)), ...belowMinima(result)]
  if (surprises.length === 0) return result
  for (const surprise of surprises) console.error(`conformance: ${surprise}`)
  const runs = [await oneRun(result.name, 2)]
  return { name: result.name, runs, judged: judge(runs) }
}

async function oneRun (name, run) {
  const origin = await startOrigin({ port: options['origin-port'], verbose: options.verbose })
  try {
    const base = name === 'base'
      ? options.base.replace(/\/$/, '')
      : (await startServer(name, { origin: origin.port, littoral: littoralPath(), command: options.command, extra: positionals, verbose: options.verbose })).base
    if (options.id !== undefined) return await runOne(base, options.id, origin)
    console.error(`conformance: ${name}, run ${run}: about a minute`)
    return await runClient(base)
  } finally {
    await stopAll()
  }
}

function servers () {
  if (options.base !== undefined) return ['base']
  if (options.command !== undefined) return ['command']
  if (options.readme) return compared
  return (options.server ?? 'littoral').split(',').filter(name => name !== '')
}

function littoralPath () {
  return path.resolve(options.littoral ?? process.env.LITTORAL_BIN ?? path.join(here, '../../target/release/littoral'))
}

function expectationsFor (name) {
  if (options.expectations !== undefined) return readExpectations(options.expectations)
  return name === 'littoral' ? readExpectations(path.join(here, 'expectations.toml')) : undefined
}

function belowMinima ({ name, judged }) {
  return kinds.flatMap(kind => {
    const minimum = options[`min-${kind}`] === undefined ? 0 : count(`min-${kind}`)
    const passed = total(judged, kind).pass
    return passed < minimum ? [`${name}: ${passed} ${kind} tests passed, expected at least ${minimum}`] : []
  })
}

function count (option, fallback) {
  const value = Number(options[option] ?? fallback)
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${option}: expected a number, found ${options[option]}`)
  return value
}

function parse () {
  const text = { type: 'string' }
  try {
    const parsed = parseArgs({
      allowPositionals: true,
      options: {
        server: text, littoral: text, command: text, base: text, 'origin-port': text, runs: text, 'min-required': text,
        'min-optimal': text, expectations: text, json: text, id: text,
        readme: { type: 'boolean', default: false },
        verbose: { type: 'boolean', default: false }, help: { type: 'boolean', short: 'h', default: false }
      }
    })
    const contrary = parsed.values.readme ? notWithReadme.find(option => parsed.values[option] !== undefined) : undefined
    if (contrary !== undefined) throw new Error(`expected --readme or --${contrary}, found both`)
    return parsed
  } catch (error) {
    console.error(`conformance: ${error.message}\n\n${usage}`)
    process.exit(2)
  }
}
