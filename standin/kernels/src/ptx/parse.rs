//! From text to instructions with resolved registers and labels.

use std::collections::{BTreeMap, HashMap};

use super::{Entry, Module};

/// A register, by number: 64 bits of storage whatever its type.
pub type Register = usize;

#[derive(Clone, Copy, Debug)]
pub enum Operand {
    Register(Register),
    Immediate(u64),
    Special(Special),
}

/// What a thread can ask about its place.
#[derive(Clone, Copy, Debug)]
pub enum Special {
    Thread,
    Block,
    Blocks,
    BlockThreads,
}

/// `[register + offset]`.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub register: Register,
    pub offset: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
    Min,
}

#[derive(Clone, Copy, Debug)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Integers are unsigned; `bits` is the width of the operation.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Bytes of the parameter buffer.
    LoadParameter {
        to: Register,
        offset: u32,
        bytes: u32,
    },
    /// One or two elements of `bytes` bytes.
    Load {
        to: Vec<Register>,
        from: Place,
        bytes: u32,
    },
    Store {
        to: Place,
        from: Vec<Register>,
        bytes: u32,
    },
    Move {
        to: Register,
        from: Operand,
        bits: u32,
    },
    /// Two halves of 32 bits make a word, and back; the low one first.
    Pack {
        to: Register,
        from: [Register; 2],
    },
    Unpack {
        to: [Register; 2],
        from: Register,
    },
    Compute {
        what: Binary,
        to: Register,
        a: Operand,
        b: Operand,
        bits: u32,
    },
    /// `a * b + c`.
    MultiplyAdd {
        to: Register,
        a: Operand,
        b: Operand,
        c: Operand,
        bits: u32,
    },
    Compare {
        what: Comparison,
        to: Register,
        a: Operand,
        b: Operand,
        bits: u32,
    },
    Select {
        to: Register,
        yes: Operand,
        no: Operand,
        by: Register,
    },
    /// Each thread gets `from` of the thread whose number differs in the bits of `mask`.
    Exchange {
        to: Register,
        from: Register,
        mask: Operand,
    },
    Branch {
        to: usize,
    },
    Return,
}

#[derive(Clone, Debug)]
pub struct Instruction {
    /// Carried out only where the register is not zero (`true`), or is.
    pub when: Option<(Register, bool)>,
    pub operation: Operation,
}

const ENTRY: &str = ".entry";

pub fn module(text: &str) -> Result<Module, String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
    let mut entries = BTreeMap::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find(ENTRY) {
        let after = &rest[at + ENTRY.len()..];
        let (name, parameters) = after.split_once('(').ok_or("an entry without parameters")?;
        let (parameters, after) = parameters.split_once(')').ok_or("parameters without an end")?;
        let (_, body) = after.split_once('{').ok_or("an entry without a body")?;
        // Braces are vectors inside a body: its end is the one on a line of its own.
        let (body, after) = body.split_once("\n}").ok_or("a body without an end")?;
        let name = name.trim().to_string();
        let entry = entry(parameters, body).map_err(|fault| format!("{name}: {fault}"))?;
        entries.insert(name, entry);
        rest = after;
    }
    if entries.is_empty() {
        return Err("no entry".to_string());
    }
    Ok(Module { entries })
}

fn entry(parameters: &str, body: &str) -> Result<Entry, String> {
    let mut reader = Reader::default();
    for parameter in parameters.split(',') {
        reader.parameter(parameter.trim())?;
    }
    // Labels first: a branch may lead forward.
    let mut statements = Vec::new();
    for statement in body.split(';') {
        let mut statement = statement.trim();
        while let Some((label, after)) = statement.split_once(':') {
            reader.labels.insert(label.trim().to_string(), statements.len());
            statement = after.trim();
        }
        if let Some(declared) = statement.strip_prefix(".reg") {
            reader.registers(declared);
        } else if !statement.is_empty() {
            statements.push(statement);
        }
    }
    let code: Result<Vec<_>, String> = statements
        .iter()
        .map(|statement| reader.instruction(statement).ok_or(format!("not known: {statement}")))
        .collect();
    Ok(Entry { layout: reader.layout, registers: reader.names.len(), code: code?.into() })
}

#[derive(Default)]
struct Reader {
    names: HashMap<String, Register>,
    labels: HashMap<String, usize>,
    parameters: HashMap<String, u32>,
    layout: Vec<(u32, u32)>,
}

impl Reader {
    /// `.param .u64 name`
    fn parameter(&mut self, text: &str) -> Result<(), String> {
        let mut words = text.split_whitespace();
        let (Some(".param"), Some(kind), Some(name)) = (words.next(), words.next(), words.next())
        else {
            return Err(format!("not a parameter: {text}"));
        };
        let bytes = width(kind.trim_start_matches('.')).ok_or(format!("not a type: {kind}"))? / 8;
        let end = self.layout.last().map_or(0, |&(offset, bytes)| offset + bytes);
        let offset = end.next_multiple_of(bytes);
        self.layout.push((offset, bytes));
        self.parameters.insert(name.to_string(), offset);
        Ok(())
    }

    /// ` .b64  a, b, c`
    fn registers(&mut self, declared: &str) {
        let names = declared.trim().split_once(char::is_whitespace).map_or("", |(_, names)| names);
        for name in names.split(',') {
            let number = self.names.len();
            self.names.entry(name.trim().to_string()).or_insert(number);
        }
    }

    fn instruction(&self, statement: &str) -> Option<Instruction> {
        let (when, statement) = match statement.strip_prefix('@') {
            None => (None, statement),
            Some(guarded) => {
                let (guard, rest) = guarded.split_once(char::is_whitespace)?;
                let wanted = !guard.starts_with('!');
                let by = *self.names.get(guard.trim_start_matches('!'))?;
                (Some((by, wanted)), rest.trim())
            }
        };
        let (opcode, operands) =
            statement.split_once(char::is_whitespace).unwrap_or((statement, ""));
        let operands = split(operands);
        Some(Instruction { when, operation: self.operation(opcode, &operands)? })
    }

    fn operation(&self, opcode: &str, operands: &[&str]) -> Option<Operation> {
        let parts: Vec<&str> = opcode.split('.').collect();
        let bits = parts.last().and_then(|kind| width(kind)).unwrap_or(64);
        let register = |at: usize| self.names.get(*operands.get(at)?).copied();
        let value = |at: usize| self.value(operands.get(at)?);
        Some(match parts[..] {
            ["ld", "param", _] => {
                let name = operands.get(1)?.strip_prefix('[')?.strip_suffix(']')?;
                let offset = *self.parameters.get(name)?;
                Operation::LoadParameter { to: register(0)?, offset, bytes: bits / 8 }
            }
            ["ld", "global", _] | ["ld", "global", "v2", _] => Operation::Load {
                to: self.list(operands.first()?)?,
                from: self.place(operands.get(1)?)?,
                bytes: bits / 8,
            },
            ["st", "global", _] | ["st", "global", "v2", _] => Operation::Store {
                to: self.place(operands.first()?)?,
                from: self.list(operands.get(1)?)?,
                bytes: bits / 8,
            },
            ["mov", "b64"] if operands.first()?.starts_with('{') => {
                let to = self.list(operands.first()?)?.try_into().ok()?;
                Operation::Unpack { to, from: register(1)? }
            }
            ["mov", "b64"] if operands.get(1)?.starts_with('{') => {
                let from = self.list(operands.get(1)?)?.try_into().ok()?;
                Operation::Pack { to: register(0)?, from }
            }
            ["mov", _] => Operation::Move { to: register(0)?, from: value(1)?, bits },
            ["cvt", to, from] => {
                let bits = width(to)?.min(width(from)?);
                Operation::Move { to: register(0)?, from: value(1)?, bits }
            }
            ["mad", "lo", _] => Operation::MultiplyAdd {
                to: register(0)?,
                a: value(1)?,
                b: value(2)?,
                c: value(3)?,
                bits,
            },
            ["setp", comparison, kind] if !kind.starts_with('s') => Operation::Compare {
                what: match comparison {
                    "eq" => Comparison::Equal,
                    "ne" => Comparison::NotEqual,
                    "lt" => Comparison::Less,
                    "le" => Comparison::LessOrEqual,
                    "gt" => Comparison::Greater,
                    "ge" => Comparison::GreaterOrEqual,
                    _ => return None,
                },
                to: register(0)?,
                a: value(1)?,
                b: value(2)?,
                bits,
            },
            ["selp", _] => Operation::Select {
                to: register(0)?,
                yes: value(1)?,
                no: value(2)?,
                by: register(3)?,
            },
            ["shfl", "sync", "bfly", "b32"] if operands.get(3..)? == ["31", "0xFFFFFFFF"] => {
                Operation::Exchange { to: register(0)?, from: register(1)?, mask: value(2)? }
            }
            ["bra"] => Operation::Branch { to: *self.labels.get(*operands.first()?)? },
            ["ret"] => Operation::Return,
            [name, ..] => {
                let what = match (name, parts.get(1..parts.len() - 1)?) {
                    ("add", []) => Binary::Add,
                    ("sub", []) => Binary::Sub,
                    ("mul", ["lo"]) => Binary::Mul,
                    ("and", []) => Binary::And,
                    ("or", []) => Binary::Or,
                    ("xor", []) => Binary::Xor,
                    ("shl", []) => Binary::ShiftLeft,
                    ("shr", []) if !parts[1].starts_with('s') => Binary::ShiftRight,
                    ("min", []) if parts[1].starts_with('u') => Binary::Min,
                    _ => return None,
                };
                Operation::Compute { what, to: register(0)?, a: value(1)?, b: value(2)?, bits }
            }
            [] => return None,
        })
    }

    fn value(&self, text: &str) -> Option<Operand> {
        if let Some(&register) = self.names.get(text) {
            return Some(Operand::Register(register));
        }
        Some(match text {
            "%tid.x" => Operand::Special(Special::Thread),
            "%ctaid.x" => Operand::Special(Special::Block),
            "%nctaid.x" => Operand::Special(Special::Blocks),
            "%ntid.x" => Operand::Special(Special::BlockThreads),
            _ => Operand::Immediate(number(text)?),
        })
    }

    /// `{a, b}`, or one register.
    fn list(&self, text: &str) -> Option<Vec<Register>> {
        let inner = text.trim_start_matches('{').trim_end_matches('}');
        inner.split(',').map(|name| self.names.get(name.trim()).copied()).collect()
    }

    /// `[register]`, `[register+512]`
    fn place(&self, text: &str) -> Option<Place> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        let (name, offset) = inner.split_once('+').unwrap_or((inner, "0"));
        Some(Place { register: *self.names.get(name.trim())?, offset: number(offset.trim())? })
    }
}

/// The operands of one instruction: commas within braces do not divide.
fn split(operands: &str) -> Vec<&str> {
    let mut depth = 0;
    operands
        .split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|operand| !operand.is_empty())
        .collect()
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Bits of a type: `u8` to `b64`.
fn width(kind: &str) -> Option<u32> {
    let bits: u32 = kind.strip_prefix(['u', 'b', 's'])?.parse().ok()?;
    matches!(bits, 8 | 16 | 32 | 64).then_some(bits)
}
