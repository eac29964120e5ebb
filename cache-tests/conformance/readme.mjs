// The part of ../README.md that `run.mjs --readme` writes: who was measured, and the table of suites.
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { suiteRoot } from './judge.mjs'
import { tableOfSuites } from './report.mjs'

const begin = '<!-- written by conformance/run.mjs --readme -->'
const end = '<!-- written by conformance/run.mjs --readme: end -->'
const number = /\d+(\.\d+)+/

const versions = {
  littoral: littoral => [littoral, '--version'],
  nginx: () => ['nginx', '-v'],
  varnish: () => ['varnishd', '-V'],
  haproxy: () => ['haproxy', '-v']
}

/** Every server the README compares, in the order of its columns. */
export const compared = Object.keys(versions)

/** The README around its table. Throws when there is no place for one, before minutes are spent on it. */
export function readReadme (file, described) {
  const text = fs.readFileSync(file, 'utf8')
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from === -1 || to < from) throw new Error(`${file}: expected the lines ${begin} and ${end}`)
  return { file, before: text.slice(0, from), described, after: text.slice(to + end.length) }
}

/** What is measured, as one sentence for the README. Throws when a server is not there. */
export function describe (littoral, runs) {
  const suite = JSON.parse(fs.readFileSync(path.join(suiteRoot, 'package.json'), 'utf8'))
  const servers = compared.map(name => `${name} ${versionOf(name, littoral)}`)
  return `${suite.name} ${suite.version}, ${runs === 1 ? 'one run' : `passed in each of ${runs} runs`}: ${servers.join(', ')}.`
}

export function writeReadme ({ file, before, described, after }, suites, results) {
  fs.writeFileSync(file, `${before}${begin}\n${described}\n\n${tableOfSuites(suites, results)}\n${end}${after}`)
}

function versionOf (name, littoral) {
  const [command, ...rest] = versions[name](littoral)
  const { error, stdout, stderr } = spawnSync(command, rest, { encoding: 'utf8' })
  if (error !== undefined) throw new Error(`${name}: ${error.message}; all of ${compared.join(', ')} are compared`)
  const found = number.exec(stdout + stderr)
  if (found === null) throw new Error(`${name}: expected a version, found ${stdout}${stderr}`)
  return found[0]
}
