// Accepted failures: a file of `id = "reason"`, which is a subset of TOML.
import fs from 'node:fs'
import { notPassed } from './judge.mjs'

/** The kinds of tests that are to pass, or to be listed. */
export const binding = ['required', 'optimal']

const line = /^\s*(?:"([^"]+)"|([A-Za-z0-9_-]+))\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:#.*)?$/

/** A map from test id to reason. Throws on anything that is not such a line, a comment or empty. */
export function readExpectations (file) {
  const accepted = new Map()
  fs.readFileSync(file, 'utf8').split('\n').forEach((text, index) => {
    if (/^\s*(#.*)?$/.test(text)) return
    const match = line.exec(text)
    const where = `${file}:${index + 1}`
    if (match === null) throw new Error(`${where}: expected id = "reason", found ${text.trim()}`)
    const id = match[1] ?? match[2]
    const reason = JSON.parse(`"${match[3]}"`)
    if (accepted.has(id)) throw new Error(`${where}: ${id} is listed twice`)
    if (reason.trim() === '') throw new Error(`${where}: ${id} has no reason`)
    accepted.set(id, reason)
  })
  return accepted
}

export function asExpectation (id, reason) {
  return `${/^[A-Za-z0-9_-]+$/.test(id) ? id : JSON.stringify(id)} = ${JSON.stringify(reason)}`
}

/**
 * What is wrong, as sentences. A listed test that passed in some runs only is unsteady: it stays
 * listed, and the report names it.
 */
export function compareWithExpectations ({ name, judged }, accepted) {
  if (accepted === undefined) return []
  const problems = []
  for (const id of accepted.keys()) {
    const entry = judged.get(id)
    if (entry === undefined) problems.push(`expectations: the suite has no test ${id}: remove it`)
    else if (!binding.includes(entry.kind)) problems.push(`expectations: ${id} is a ${entry.kind} and fails nobody: remove it`)
    else if (entry.outcome === 'pass') problems.push(`expectations: ${name} passes ${id}: remove it`)
  }
  for (const kind of binding) {
    const unlisted = notPassed(judged, kind).filter(([id]) => !accepted.has(id))
    if (unlisted.length > 0) {
      problems.push(`${name} does not pass ${unlisted.map(([id]) => id).join(', ')} (${kind}), which no expectation accepts`)
    }
  }
  return problems
}
